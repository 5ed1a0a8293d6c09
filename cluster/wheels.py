"""Does every pinned wheel of the image exist for both architectures? `python -m cluster.wheels`.

uv resolves each variant of the image as on Debian 12 of that architecture, from wheels alone, against the
configured package index. Only names and metadata travel: seconds, where downloading would take gigabytes.
Ends with 1 when a wheel lacks, with 2 when an index could not be asked.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from assistant.errors import AssistantError, ConfigurationError, Unavailable
from cluster.bootstrap import TORCH_CPU_INDEX
from cluster.layout import ROOT

DOCKERFILE = ROOT / "cluster" / "Dockerfile"
MACHINES = ("x86_64", "aarch64")
GLIBC = "manylinux_2_36"
"""Debian 12."""
SOURCE_ONLY = ("rouge-score",)
"""Pure Python and published without a wheel: pip builds it in the image, and needs no compiler for it."""
LACKING = re.compile(r"Because ([A-Za-z0-9._-]+)(?:\{[^}]*\})?==(\S+) has (no [^,]*?wheels[^,]*?)(?: and |,)")
ABSENT = re.compile(r"there is no version of ([A-Za-z0-9._-]+)(?:\{[^}]*\})?==(\S+?),? (?:and|we)")
TIMEOUT_S = 600


@dataclass(frozen=True)
class Variant:
    """How the Dockerfile installs one variant: extras of the project, under exact versions."""

    name: str
    extras: tuple[str, ...]
    pins: str
    torch_index: str = ""


VARIANTS = (
    Variant("cpu", ("train", "evals"), "constraints.txt", TORCH_CPU_INDEX),
    Variant("cuda", ("train", "evals", "vllm"), "requirements/cuda.txt"),
)


@dataclass
class Answer:
    """What an index said of one variant on one machine. `lacking`: requirement to reason."""

    variant: str
    machine: str
    found: int = 0
    lacking: dict[str, str] = field(default_factory=dict)
    unasked: str = ""


Run = Callable[[Sequence[str], str], "subprocess.CompletedProcess[str]"]


def check(variant: Variant, machine: str, run: "Run | None" = None) -> Answer:
    """Every wheel of `variant` for `machine`. Raises Unavailable when the package index does not answer."""
    answer = Answer(variant.name, machine)
    arguments = ["-c", variant.pins, "pyproject.toml", "requirements/image.txt"]
    for extra in variant.extras:
        arguments += ["--extra", extra]
    built = list(SOURCE_ONLY)
    while True:
        # What lacks is taken from source in the next round, so that one run names all of them.
        done = (run or uv)([*options(machine), *(f"--no-binary={name}" for name in built), *arguments], "")
        if done.returncode == 0:
            answer.found = sum("==" in line for line in done.stdout.splitlines()) - len(built)
            break
        name, requirement, reason = refusal(done.stderr)
        answer.lacking[requirement] = reason
        if reason == "not published" or name in built:
            break
        built.append(name)
    if variant.torch_index:
        _check_torch(variant, machine, answer, run or uv)
    return answer


def _check_torch(variant: Variant, machine: str, answer: Answer, run: Run) -> None:
    wanted = f"torch=={pinned_torch()}+cpu"
    arguments = [*options(machine), "--no-deps", "--default-index", variant.torch_index, "-"]
    done = run(arguments, wanted)
    if done.returncode == 0:
        return
    try:
        _, _, answer.lacking[wanted] = refusal(done.stderr)
    except Unavailable as error:
        answer.unasked = f"{wanted} at {variant.torch_index}: {error.detail}"


def options(machine: str) -> list[str]:
    return [
        *("--quiet", "--no-header", "--no-annotate", "--only-binary", ":all:"),
        *("--python-version", image_python(), "--python-platform", f"{machine}-{GLIBC}"),
    ]


def uv(arguments: Sequence[str], text: str) -> "subprocess.CompletedProcess[str]":
    """`uv pip compile` in the checkout; `text` are requirements for `-`."""
    if importlib.util.find_spec("uv") is None:
        raise ConfigurationError("The package `uv` is not installed here.", hint="pip install uv")
    return subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", *arguments],
        cwd=ROOT,
        input=text,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
    )


def refusal(stderr: str) -> tuple[str, str, str]:
    """(name, requirement, reason) of the wheel that uv misses. Raises Unavailable for any other failure."""
    flat = " ".join(stderr.split())
    if found := LACKING.search(flat):
        return found[1], f"{found[1]}=={found[2]}", found[3]
    if found := ABSENT.search(flat):
        return found[1], f"{found[1]}=={found[2]}", "not published"
    lines = [line.removeprefix("error: ") for line in stderr.splitlines() if line.startswith("error:")]
    raise Unavailable((lines or [flat[:300] or "uv said nothing"])[0].rstrip(".") + ".")


def image_python() -> str:
    """The image's Python, from the tag of its base. Raises ConfigurationError."""
    found = re.search(r"^ARG BASE=\S*python:(\d+\.\d+\.\d+)-", DOCKERFILE.read_text(), re.MULTILINE)
    if found is None:
        raise ConfigurationError(
            f"{DOCKERFILE.name}: ARG BASE names no full version of Python.",
            hint="Write it like python:3.11.16-slim-bookworm@sha256:…",
        )
    return found[1]


def pinned_torch() -> str:
    """Raises ConfigurationError."""
    found = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    if found is None:
        raise ConfigurationError("constraints.txt does not pin torch.")
    return found[1]


def report(path: Path | None = None) -> int:
    """Ask for every variant and machine and print a table; the exit status. `path`: write it there too."""
    rows = [f"{'variant':<8} {'machine':<8} {'wheels':>6}  lacking"]
    lacks = unasked = False
    for variant in VARIANTS:
        for machine in MACHINES:
            answer = check(variant, machine)
            lacking = "; ".join(f"{name}: {reason}" for name, reason in answer.lacking.items()) or "none"
            rows.append(f"{answer.variant:<8} {answer.machine:<8} {answer.found:>6}  {lacking}")
            if answer.unasked:
                rows.append(f"  not asked: {answer.unasked}")
            lacks, unasked = lacks or bool(answer.lacking), unasked or bool(answer.unasked)
    rows.append(f"from source in every variant, pure Python: {', '.join(SOURCE_ONLY)}")
    text = "\n".join(rows) + "\n"
    sys.stdout.write(text)
    if path is not None:
        path.write_text(text, encoding="utf-8")
    return 1 if lacks else 2 if unasked else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    try:
        sys.exit(report(parser.parse_args().out))
    except AssistantError as error:
        sys.stderr.write(f"wheels: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
