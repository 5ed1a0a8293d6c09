"""Run benchmarks one after another: `python -m benchmarks [NAME ...]`, all of them without a name.

Each is a module of this folder that can also be run alone (`python -m benchmarks.search --help`).
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    names = sorted(p.stem for p in HERE.glob("*.py") if not p.stem.startswith("_"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="*", choices=[*names, []], help=", ".join(names))
    chosen = parser.parse_args().name or names
    failed = [
        n for n in chosen if subprocess.run([sys.executable, "-m", f"benchmarks.{n}"], check=False).returncode
    ]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
