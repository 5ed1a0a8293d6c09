"""Stands for a learning run's process: says that it started with which settings, and waits to be told to stop."""

import argparse
import time

from assistant.settings import load_settings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", required=True)
    job_id = parser.parse_args().job
    settings = load_settings()
    folder = settings.home / "learning"
    with (folder / f"{job_id}.started").open("a", encoding="utf-8") as file:
        file.write(f"{settings.home}\n")
    while not (folder / f"{job_id}.stop").exists():
        time.sleep(0.05)


if __name__ == "__main__":
    main()
