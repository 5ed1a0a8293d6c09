"""Which Qdrant the local stack chooses, and that its command really serves."""

import json
import os
import socket
import stat
import subprocess
import time
from pathlib import Path

import pytest

from assistant.errors import ConfigurationError
from cluster.qdrant import PORTS, STATE_FILE, LocalQdrant
from tests.fixtures_qdrant import READY_S, ROOT


@pytest.fixture
def no_binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))


@pytest.fixture
def binary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "qdrant"
    path.parent.mkdir()
    path.write_text("#!/bin/sh\necho qdrant 1.20.3\n", encoding="ascii")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path


@pytest.mark.usefixtures("no_binary")
def test_the_edge_server_runs_from_its_command(tmp_path: Path) -> None:
    local = LocalQdrant(tmp_path / "qdrant")
    assert local.kind == "qdrant-edge"
    assert not local.ready()

    child = subprocess.Popen(local.command(), env=os.environ | local.environment(), cwd=ROOT)
    try:
        deadline = time.monotonic() + READY_S
        while not local.ready():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        same = LocalQdrant(tmp_path / "qdrant")
        assert (same.url, same.ready()) == (local.url, True)
        (tmp_path / "stranger").mkdir()
        state = {"kind": "qdrant-edge", "port": int(local.url.rpartition(":")[2]), "api_key": "another"}
        (tmp_path / "stranger" / STATE_FILE).write_text(json.dumps(state), encoding="ascii")
        assert not LocalQdrant(tmp_path / "stranger").ready()
    finally:
        child.terminate()
        child.wait(timeout=30)


@pytest.mark.usefixtures("no_binary")
def test_key_and_port_are_kept_privately(tmp_path: Path) -> None:
    first, second = LocalQdrant(tmp_path), LocalQdrant(tmp_path)

    assert (first.url, first.api_key) == (second.url, second.api_key)
    assert len(first.api_key.get_secret_value()) >= 32
    assert int(first.url.rpartition(":")[2]) in PORTS
    assert stat.S_IMODE((tmp_path / STATE_FILE).stat().st_mode) == 0o600
    assert first.api_key.get_secret_value() not in str(first.command())


@pytest.mark.usefixtures("no_binary")
def test_a_taken_port_is_replaced_for_good(tmp_path: Path) -> None:
    local = LocalQdrant(tmp_path)
    former = local.url
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(former.rpartition(":")[2])))
        taken.listen()

        command = local.command()

    assert local.url != former
    assert command[-1] == local.url.rpartition(":")[2]
    assert LocalQdrant(tmp_path).url == local.url
    assert stat.S_IMODE((tmp_path / STATE_FILE).stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content", ["", "{", "null", "{}", '{"kind": "qdrant-edge", "port": "x", "api_key": "k"}']
)
@pytest.mark.usefixtures("no_binary")
def test_a_damaged_state_file_costs_only_port_and_key(tmp_path: Path, content: str) -> None:
    (tmp_path / STATE_FILE).write_text(content, encoding="ascii")

    local = LocalQdrant(tmp_path)

    assert local.kind == "qdrant-edge"
    assert LocalQdrant(tmp_path).api_key == local.api_key


def test_a_qdrant_on_path_is_preferred(tmp_path: Path, binary: Path) -> None:
    local = LocalQdrant(tmp_path / "qdrant")
    environment = local.environment()

    assert (local.kind, local.version) == ("qdrant", "1.20.3")
    assert local.command() == [str(binary)]
    assert environment["QDRANT__SERVICE__HOST"] == "127.0.0.1"
    assert environment["QDRANT__SERVICE__HTTP_PORT"] == local.url.rpartition(":")[2]
    assert environment["QDRANT__SERVICE__API_KEY"] == local.api_key.get_secret_value()
    assert environment["QDRANT__STORAGE__STORAGE_PATH"].startswith(str(tmp_path / "qdrant"))


def test_data_of_edge_are_not_abandoned_when_a_binary_appears(tmp_path: Path, binary: Path) -> None:
    (tmp_path / "edge").mkdir()

    assert LocalQdrant(tmp_path).kind == "qdrant-edge"


def test_data_of_a_binary_that_is_gone_are_one_clear_error(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LocalQdrant(tmp_path / "qdrant").kind == "qdrant"
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))

    with pytest.raises(ConfigurationError, match="no longer on PATH"):
        LocalQdrant(tmp_path / "qdrant").command()
