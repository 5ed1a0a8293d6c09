"""Prometheus' programs: from PATH, else from a package whose checksum fits; a refusal says why."""

import hashlib
from pathlib import Path

import pytest

from cluster.monitoring import programs
from cluster.monitoring.programs import NotAvailable, find, install, need


class Archive:
    """apt-get, apt-cache and dpkg in a folder that is the whole PATH."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        self.package = b"a package"
        self.write("apt-cache", f"echo SHA256: {hashlib.sha256(self.package).hexdigest()}")
        self.write("apt-get", "printf 'a package' > prometheus_2.42_amd64.deb")
        self.write(
            "dpkg",
            'mkdir -p "$3/usr/bin"; for n in prometheus promtool; do touch "$3/usr/bin/$n"; '
            'chmod +x "$3/usr/bin/$n"; done',
        )

    def write(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    return Archive(tmp_path / "bin", monkeypatch)


def unpacked(folder: Path) -> list[bool]:
    return [(folder / "usr" / "bin" / name).is_file() for name in programs.NAMES]


def test_the_package_is_unpacked(archive: Archive, tmp_path: Path) -> None:
    install(tmp_path / "programs")
    assert unpacked(tmp_path / "programs") == [True, True]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("tmp")] == []


def test_a_program_on_the_path_comes_first(archive: Archive, tmp_path: Path) -> None:
    install(tmp_path / "programs")
    archive.write("promtool", "true")
    assert find("promtool", tmp_path / "programs") == archive.folder / "promtool"


def test_another_checksum_is_refused_and_nothing_is_left(archive: Archive, tmp_path: Path) -> None:
    archive.write("apt-get", "printf 'another package' > prometheus_2.42_amd64.deb")
    with pytest.raises(NotAvailable, match="checksum"):
        install(tmp_path / "programs")
    assert not (tmp_path / "programs").exists()


def test_what_was_there_stays_when_the_new_one_fails(archive: Archive, tmp_path: Path) -> None:
    install(tmp_path / "programs")
    archive.write("apt-get", "echo no network >&2; exit 100")
    with pytest.raises(NotAvailable, match="no network"):
        install(tmp_path / "programs")
    assert unpacked(tmp_path / "programs") == [True, True]


def test_a_package_without_the_programs_is_refused(archive: Archive, tmp_path: Path) -> None:
    archive.write("dpkg", 'mkdir -p "$3/usr/bin"')
    with pytest.raises(NotAvailable, match="lacks prometheus, promtool"):
        install(tmp_path / "programs")


def test_a_machine_without_apt_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotAvailable, match="brew install prometheus"):
        install(tmp_path / "programs")
    monkeypatch.setattr(programs, "find", lambda name: None)
    with pytest.raises(NotAvailable, match="promtool was not found"):
        need("promtool")
