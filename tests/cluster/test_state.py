"""The small files of the state folder: plan, state, ports, locks."""

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from assistant.errors import ConfigurationError
from cluster.files import FileLock, locked, write_private
from cluster.layout import Layout
from cluster.plan import Plan, Probe, ServiceSpec
from cluster.ports import PortBook, is_free, pick
from cluster.processes import Identity
from cluster.state import ServiceRecord, State


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    probe = Probe("http", "http://127.0.0.1:1/", headers={"api-key": "k"})
    spec = ServiceSpec("one", ("a", "b"), probe, env={"X": "1"}, env_drop=("RAY_",), after=("zero",), nice=3)
    plan = Plan(
        (spec, ServiceSpec("given", (), Probe("tcp", "h:1"))), {"page": "u"}, {"DATABASE_URL": "d"}, "1", "i"
    )
    path = tmp_path / "run" / "plan.json"
    plan.write(path)
    assert Plan.read(path) == plan
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Plan.read(path).service("given").external


def test_the_fingerprint_changes_with_what_a_start_uses() -> None:
    probe = Probe("tcp", "127.0.0.1:1")
    base = ServiceSpec("s", ("a",), probe, env={"X": "1"})
    same = ServiceSpec("s", ("a",), probe, env={"X": "1"}, patience_s=99.0)
    assert base.fingerprint == same.fingerprint
    for other in (
        ServiceSpec("s", ("b",), probe, env={"X": "1"}),
        ServiceSpec("s", ("a",), probe, env={"X": "2"}),
        ServiceSpec("s", ("a",), probe, env={"X": "1"}, inputs="new"),
    ):
        assert other.fingerprint != base.fingerprint


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 99}', '{"format": 1, "services": 3}'])
def test_a_file_that_is_no_plan_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"plan\.json"):
        Plan.read(path)


def test_a_state_survives_its_file(tmp_path: Path) -> None:
    state = State(str(tmp_path), "1.0", "plan-id", {"page": "u"}, Identity(1, "b"), None)
    state.services["one"] = ServiceRecord("one", "ready", process=Identity(2, "c"), restarts=3)
    path = tmp_path / "state.json"
    state.write(path)
    assert State.read(path) == state
    assert State.read(tmp_path / "absent.json") is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "null", "[]", '{"services": {}}', '{"services": {"a": {"odd": 1}}}'])
def test_a_file_that_is_no_state_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"state\.json"):
        State.read(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.json"
    write_private(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_private(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_excludes_and_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    hold = (
        "import sys, time; from pathlib import Path; from cluster.files import FileLock; "
        "FileLock(Path(sys.argv[1])).acquire() and print('held', flush=True); time.sleep(1000)"
    )
    holder = subprocess.Popen([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert FileLock(path).acquire(timeout_s=0.1) is False
        holder.kill()
        holder.wait()
        with locked(path, timeout_s=10.0) as held:
            assert held
    finally:
        holder.kill()
        holder.communicate()


def test_a_lock_on_a_deleted_file_is_worth_nothing(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    assert lock.is_current()
    (tmp_path / "lock").unlink()
    assert not lock.is_current()
    (tmp_path / "lock").touch()
    assert not lock.is_current()
    lock.release()


def test_ports_are_remembered_and_given_up_only_when_taken(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    port = PortBook(path).port("mlflow")
    assert PortBook(path).port("mlflow") == port
    with socket.create_server(("127.0.0.1", port)):
        assert PortBook(path).port("mlflow", in_use_by_us=True) == port
        moved = PortBook(path).port("mlflow")
        assert moved != port
    assert PortBook(path).port("mlflow") == moved


def test_a_preferred_port_is_taken_when_free_and_never_twice(tmp_path: Path) -> None:
    wanted = pick()
    book = PortBook(tmp_path / "ports.json")
    assert book.port("a", wanted) == wanted
    assert book.port("b", wanted) != wanted


def test_a_damaged_port_file_means_new_ports(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    path.write_text("[1, 2")
    port = PortBook(path).port("mlflow")
    assert json.loads(path.read_text()) == {"mlflow": port}


def test_a_port_held_on_all_addresses_is_not_free() -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert not is_free(server.getsockname()[1])


def test_rays_folder_is_short_private_and_ours(tmp_path: Path) -> None:
    deep = Layout(tmp_path / ("deep" * 40))
    assert len(str(deep.ray_temp)) < 40
    assert deep.ray_temp != Layout(tmp_path / "other").ray_temp
    made = deep.make_ray_temp()
    try:
        assert stat.S_IMODE(deep.ray_shelter.stat().st_mode) == 0o700
        deep.ray_shelter.chmod(0o755)
        with pytest.raises(ConfigurationError, match="open to others"):
            deep.make_ray_temp()
    finally:
        made.rmdir()
        deep.ray_shelter.rmdir()
