"""The supervisor with small real processes: killed, hung, orphaned, doubled, impersonated."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from cluster.launch import launch, read_state
from cluster.layout import Layout
from cluster.plan import Plan, Probe, ServiceSpec
from cluster.ports import pick
from cluster.processes import Identity, identify, is_alive
from cluster.shutdown import stop_stack, supervisors
from cluster.state import ServiceRecord, State

T = TypeVar("T")

SERVER = """
import http.server, subprocess, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *args): pass
if len(sys.argv) > 2:
    subprocess.Popen(["sleep", "1000"], start_new_session=False, process_group=0)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server(layout: Layout, name: str, *, patience_s: float = 30.0, child: bool = False) -> ServiceSpec:
    port = pick()
    return ServiceSpec(
        name,
        (sys.executable, "-c", SERVER, str(port), *(["child"] if child else [])),
        Probe("http", f"http://127.0.0.1:{port}/", timeout_s=0.3),
        log=str(layout.log(name)),
        url=f"http://127.0.0.1:{port}",
        patience_s=patience_s,
    )


def until(look: Callable[[], T], timeout_s: float = 30.0) -> T:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.02)
    raise AssertionError(f"not seen within {timeout_s} s")


def current(layout: Layout) -> State:
    state = read_state(layout)
    assert state is not None
    return state


def ready(layout: Layout, name: str) -> ServiceRecord:
    """The record of a service once it is ready and its process is there."""

    def look() -> ServiceRecord | None:
        record = current(layout).services[name]
        return record if record.phase == "ready" and is_alive(record.process) else None

    found = until(look)
    assert found is not None
    return found


def pid_of(record: ServiceRecord) -> int:
    assert record.process is not None
    return record.process.pid


def leading(layout: Layout, other_than: Identity | None = None) -> Identity:
    """The leader, once it leads and a standby waits behind it."""

    def look() -> Identity | None:
        state = read_state(layout)
        if state is None or state.leader == other_than or not is_alive(state.leader):
            return None
        return state.leader if is_alive(state.standby) and state.standby != state.leader else None

    found = until(look)
    assert found is not None
    return found


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path / "home")
    yield layout
    stop_stack(layout)
    assert supervisors(layout) == []


def test_a_killed_service_comes_back_as_a_new_process(layout: Layout) -> None:
    launch(layout, Plan((server(layout, "one"), server(layout, "two"))))
    first, other = ready(layout, "one"), ready(layout, "two")
    os.kill(pid_of(first), signal.SIGKILL)
    until(lambda: current(layout).services["one"].restarts == 1)
    again = ready(layout, "one")
    assert pid_of(again) != pid_of(first)
    assert again.failure == "ended by signal 9"
    assert ready(layout, "two").process == other.process


def test_the_standby_takes_over_and_leaves_services_alone(layout: Layout) -> None:
    launch(layout, Plan((server(layout, "one"),)))
    service, leader = ready(layout, "one"), leading(layout)
    standby = current(layout).standby
    os.kill(leader.pid, signal.SIGKILL)
    assert leading(layout, other_than=leader) == standby
    assert ready(layout, "one").process == service.process
    assert current(layout).services["one"].restarts == 0
    os.kill(pid_of(service), signal.SIGKILL)
    until(lambda: current(layout).services["one"].restarts == 1)
    ready(layout, "one")


def test_a_dead_standby_is_replaced(layout: Layout) -> None:
    launch(layout, Plan((server(layout, "one"),)))
    leader, standby = leading(layout), current(layout).standby
    assert standby is not None
    os.kill(standby.pid, signal.SIGKILL)
    until(lambda: current(layout).standby not in {standby, None})
    assert leading(layout) == leader


def test_both_supervisors_dead_the_next_launch_adopts(layout: Layout) -> None:
    plan = Plan((server(layout, "one"),))
    launch(layout, plan)
    service = ready(layout, "one")
    leading(layout)
    kill_supervisors(layout)
    layout.state.unlink()
    launch(layout, plan)
    assert ready(layout, "one").process == service.process


def test_a_service_that_hangs_is_replaced(layout: Layout) -> None:
    launch(layout, Plan((server(layout, "one", patience_s=1.0),)))
    first = ready(layout, "one")
    os.kill(pid_of(first), signal.SIGSTOP)
    until(lambda: current(layout).services["one"].restarts == 1)
    again = ready(layout, "one")
    assert pid_of(again) != pid_of(first)
    assert not is_alive(first.process)
    assert "did not answer" in again.failure


def test_a_service_that_cannot_start_says_why_and_is_tried_again(layout: Layout) -> None:
    spec = ServiceSpec(
        "broken", ("/does/not/exist",), Probe("tcp", "127.0.0.1:1"), log=str(layout.log("broken"))
    )
    launch(layout, Plan((spec,)))
    until(lambda: current(layout).services["broken"].failures >= 2)
    assert "/does/not/exist" in current(layout).services["broken"].failure


def test_a_service_waits_for_what_it_needs(layout: Layout) -> None:
    first = server(layout, "first")
    second = ServiceSpec(
        "second", server(layout, "second").command, Probe("tcp", "127.0.0.1:1"), after=("first",)
    )
    broken = ServiceSpec("first", ("false",), first.probe, log=str(layout.log("first")))
    launch(layout, Plan((broken, second)))
    until(lambda: current(layout).services["first"].failures >= 2)
    assert current(layout).services["second"].phase == "waiting"


def test_simultaneous_launches_make_one_stack(layout: Layout) -> None:
    plan = Plan((server(layout, "one"),))
    threads = [threading.Thread(target=launch, args=(layout, plan)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ready(layout, "one")
    leading(layout)
    assert len(supervisors(layout)) == 2
    command = list(plan.services[0].command)
    assert sum(process_command(p) == command for p in psutil.process_iter()) == 1


def test_a_changed_service_is_restarted_and_a_removed_one_stopped(layout: Layout) -> None:
    one, two, three = (server(layout, name) for name in ("one", "two", "three"))
    launch(layout, Plan((one, two, three)))
    before = {name: ready(layout, name).process for name in ("one", "two", "three")}
    moved = server(layout, "two")
    launch(layout, Plan((one, moved)))
    until(lambda: current(layout).services["two"].process not in {before["two"], None})
    assert ready(layout, "two").url == moved.url
    assert ready(layout, "one").process == before["one"]
    assert not is_alive(before["two"])
    until(lambda: not is_alive(before["three"]))


def test_down_stops_descendants_too_and_nothing_else(layout: Layout) -> None:
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        launch(layout, Plan((server(layout, "one", child=True),)))
        record = ready(layout, "one")
        children = until(lambda: psutil.Process(pid_of(record)).children())
        assert os.getpgid(children[0].pid) != pid_of(record)
        stopped = stop_stack(layout)
        assert [s.name for s in stopped] == ["one"]
        assert not is_alive(record.process)
        assert identify(children[0].pid) is None
        assert supervisors(layout) == []
        assert stranger.poll() is None
        assert stop_stack(layout) == []
    finally:
        stranger.kill()
        stranger.wait()


def test_leftovers_of_a_dead_service_are_killed_before_its_restart(layout: Layout) -> None:
    launch(layout, Plan((server(layout, "one", child=True),)))
    record = ready(layout, "one")
    child = until(lambda: psutil.Process(pid_of(record)).children())[0]
    os.kill(pid_of(record), signal.SIGKILL)
    until(lambda: current(layout).services["one"].restarts == 1)
    ready(layout, "one")
    assert identify(child.pid) is None


def test_a_reused_pid_is_never_touched(layout: Layout) -> None:
    stranger = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        state = State(str(layout.home))
        stale = Identity(stranger.pid, "another birth")
        state.leader = state.standby = stale
        state.services["one"] = ServiceRecord("one", "ready", process=stale)
        state.write(layout.state)
        assert stop_stack(layout) == []
        state.write(layout.state)
        launch(layout, Plan((server(layout, "one"),)))
        assert pid_of(ready(layout, "one")) != stranger.pid
        stop_stack(layout)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_an_external_service_is_only_probed(layout: Layout) -> None:
    port = pick()
    outside = subprocess.Popen([sys.executable, "-c", SERVER, str(port)])
    try:
        probe = Probe("http", f"http://127.0.0.1:{port}/", timeout_s=0.3)
        launch(layout, Plan((ServiceSpec("outside", (), probe, url=probe.target),)))
        until(lambda: current(layout).services["outside"].phase == "ready")
        assert current(layout).services["outside"].process is None
        stop_stack(layout)
        assert outside.poll() is None
    finally:
        outside.kill()
        outside.wait()


def test_removing_the_state_folder_ends_the_stack(layout: Layout) -> None:
    launch(layout, Plan((server(layout, "one"),)))
    record, leader = ready(layout, "one"), leading(layout)
    shutil.rmtree(layout.home)
    until(lambda: not is_alive(record.process) and not is_alive(leader))
    until(lambda: supervisors(layout) == [])


def test_a_damaged_state_file_does_not_stop_anything(layout: Layout) -> None:
    plan = Plan((server(layout, "one"),))
    launch(layout, plan)
    record = ready(layout, "one")
    leading(layout)
    kill_supervisors(layout)
    layout.state.write_text("{ not json")
    launch(layout, plan)
    assert ready(layout, "one").process == record.process


def kill_supervisors(layout: Layout) -> None:
    while found := supervisors(layout):
        for process in found:
            if is_alive(process):
                os.kill(process.pid, signal.SIGKILL)


def process_command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
