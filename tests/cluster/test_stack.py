"""The whole stack, for real: started once, each process killed with -9 in turn, then stopped without a trace."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from cluster.layout import Layout
from cluster.plan import Plan
from cluster.ports import pick
from cluster.processes import Identity, find_owned, is_alive, members
from cluster.shutdown import stop_stack, supervisors
from cluster.state import State

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1200)]

HEAL_S = 600.0
RAY_AGENT_PORT = 52365
RUNBOOKS = {
    "volumes.md": "# Volumes\n\n## Mitigation\n\nWhen a persistent volume fills up, delete old snapshots first.\n",
    "certificates.md": "# Certificates\n\nRotate the certificates of the gateway every ninety days.\n",
}


class Stack:
    """One running stack and what a user sees of it."""

    def __init__(self, layout: Layout, port: int) -> None:
        self.layout = layout
        self.port = port

    def command(self, *arguments: str, codes: tuple[int, ...] = (0,)) -> Any:
        """Run `ai-assistant … --json`; its answer."""
        done = subprocess.run(
            [sys.executable, "-c", "from cluster.cli import main; main()", *arguments, "--json"],
            env={
                **os.environ,
                "AI_ASSISTANT_HOME": str(self.layout.home),
                "AI_ASSISTANT_SERVE__PORT": str(self.port),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode in codes, (
            f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.logs()}"
        )
        return json.loads(done.stdout)

    def logs(self) -> str:
        return "\n".join(f"{p.name}: {p.read_text()[-1500:]}" for p in sorted(self.layout.logs.glob("*.log")))

    def state(self) -> State:
        state = State.read(self.layout.state)
        assert state is not None
        return state

    def process(self, service: str) -> Identity:
        process = self.state().services[service].process
        assert process is not None
        return process

    def finds(self, query: str, title: str) -> bool:
        """Whether the page answers, every service is well, and a search finds the document."""
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False
            ) as client:
                page = client.get("/")
                hits = client.post("/api/v1/search", json={"query": query}).json()["hits"]
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        well = all(record.phase == "ready" for record in self.state().services.values())
        return well and page.status_code == 200 and bool(hits) and hits[0]["title"] == title

    def wait(self, look: Callable[[], object], what: str, timeout_s: float = HEAL_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not look():
            assert time.monotonic() < deadline, f"{what} not seen within {timeout_s} s\n{self.logs()}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def stack(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    layout = Layout(tmp_path_factory.mktemp("stack") / "home")
    layout.home.mkdir()
    (layout.home / "models").symlink_to(models_dir)
    folder = tmp_path_factory.mktemp("runbooks") / "runbooks"
    folder.mkdir()
    for name, text in RUNBOOKS.items():
        (folder / name).write_text(text)
    made = Stack(layout, pick())
    other = socket.socket()
    with contextlib.suppress(OSError):
        # As another Ray on the machine would; where one does, it is taken already.
        other.bind(("0.0.0.0", RAY_AGENT_PORT))
        other.listen()
    try:
        started = made.command("up", "--no-ingest")
        assert {step["name"] for step in started["steps"]} >= {
            "weights",
            "postgres",
            "qdrant",
            "mlflow",
            "ray",
        }
        report = made.command("ingest", str(folder))
        assert report["sources"][0]["source"] == "runbooks"
        assert report["sources"][0]["added"] == len(RUNBOOKS)
        yield made
    finally:
        other.close()
        stop_stack(layout)


def test_a_second_up_changes_nothing(stack: Stack) -> None:
    before = {name: record.process for name, record in stack.state().services.items()}
    again = stack.command("up", "--no-ingest")
    assert {name: record.process for name, record in stack.state().services.items()} == before
    assert all("already running" in s["detail"] for s in again["steps"] if s["name"] in before)


def test_status_names_everything(stack: Stack) -> None:
    found: dict[str, Any] = {}

    def well() -> bool:
        # A busy machine may answer one round of questions too late.
        found.update(stack.command("status", codes=(0, 4)))
        return bool(found["healthy"] and found["health"] == "ok")

    stack.wait(well, "good health")
    assert found["counts"]["documents"] == len(RUNBOOKS)
    assert {s["name"] for s in found["services"]} == {"postgres", "qdrant", "ray", "mlflow"}
    assert all(s["pid"] and s["rss_bytes"] for s in found["services"])
    for name in ("page", "mlflow"):
        assert httpx.get(found["urls"][name], trust_env=False).status_code == 200
    # The dashboard can start any job on this machine, so it answers nobody without the token.
    assert httpx.get(f"{found['urls']['dashboard']}/api/version", trust_env=False).status_code == 401


def test_the_experiment_exists(stack: Stack) -> None:
    url = f"{stack.state().urls['mlflow']}/api/2.0/mlflow/experiments/get-by-name"
    answer = httpx.get(url, params={"experiment_name": "ai-assistant"}, trust_env=False)
    assert answer.json()["experiment"]["name"] == "ai-assistant"


def test_jobs_start_beside_another_ray(stack: Stack) -> None:
    """Learning runs are Ray jobs, and Ray starts those through an agent with a port of its own."""
    plan = Plan.read(stack.layout.plan)
    assert plan is not None
    submit = (
        "import sys, time; from ray.job_submission import JobSubmissionClient; "
        "client = JobSubmissionClient(sys.argv[1]); job = client.submit_job(entrypoint='true')\n"
        "while not client.get_job_status(job).is_terminal(): time.sleep(0.5)\n"
        "print(client.get_job_status(job))"
    )
    done = subprocess.run(
        [sys.executable, "-c", submit, stack.state().urls["dashboard"]],
        env={**os.environ, **plan.service("ray").env},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "SUCCEEDED" in done.stdout, done.stderr[-1500:]


def test_nothing_of_it_is_reachable_without_a_key_beyond_this_machine(stack: Stack) -> None:
    """Ray's own ports listen everywhere and ask for the token; all others must stay on loopback."""
    for name in ("postgres", "qdrant", "mlflow"):
        for process in members(stack.process(name)):
            listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
            assert set(listening) <= {"127.0.0.1"}, (name, listening)
    page = [
        c.laddr.ip
        for p in members(None, str(stack.layout.ray_shelter)) + members(stack.process("ray"))
        for c in p.net_connections()
        if c.status == psutil.CONN_LISTEN and c.laddr.port == stack.port
    ]
    assert set(page) == {"127.0.0.1"}


@pytest.mark.parametrize("victim", ["postgres", "qdrant", "mlflow", "raylet", "ray"])
def test_a_killed_process_heals(stack: Stack, victim: str) -> None:
    stack.wait(lambda: stack.finds("persistent volume", "Volumes"), "a healthy stack")
    service = "ray" if victim == "raylet" else victim
    before = stack.process(service)
    target = before.pid
    if victim == "raylet":
        target = next(p.pid for p in members(before) if p.name() == "raylet")
    os.kill(target, signal.SIGKILL)
    stack.wait(lambda: stack.state().services[service].process not in {None, before}, f"another {service}")
    stack.wait(lambda: stack.finds("persistent volume", "Volumes"), f"healing after {victim}")
    assert stack.state().services[service].restarts >= 1
    if service == "ray":
        assert members(before) == []


def test_a_killed_supervisor_is_replaced_and_nothing_restarts(stack: Stack) -> None:
    stack.wait(lambda: stack.finds("persistent volume", "Volumes"), "a healthy stack")
    before = stack.state()
    assert before.leader is not None
    stack.wait(lambda: is_alive(stack.state().standby), "a standby")
    os.kill(before.leader.pid, signal.SIGKILL)
    stack.wait(
        lambda: is_alive(stack.state().leader) and stack.state().leader != before.leader, "a new leader"
    )
    stack.wait(lambda: stack.finds("persistent volume", "Volumes"), "the adopted stack")
    after = stack.state()
    assert {n: r.process for n, r in after.services.items()} == {
        n: r.process for n, r in before.services.items()
    }


def test_rays_dashboard_comes_back_without_a_restart(stack: Stack) -> None:
    stack.wait(lambda: stack.finds("persistent volume", "Volumes"), "a healthy stack")
    ray = stack.process("ray")
    dashboard = next(p for p in members(ray) if any("dashboard/dashboard.py" in a for a in p.cmdline()))
    dashboard.kill()

    def answers() -> bool:
        try:
            return httpx.get(stack.state().urls["dashboard"], trust_env=False).status_code in {200, 401}
        except httpx.HTTPError:
            return False

    stack.wait(lambda: not dashboard.is_running() and answers(), "the dashboard")
    assert stack.process("ray") == ray
    assert stack.finds("persistent volume", "Volumes")


def test_down_leaves_no_process_and_keeps_the_data(stack: Stack) -> None:
    before = stack.state()
    processes = [p for r in before.services.values() for p in members(r.process)]
    stopped = stack.command("down")["stopped"]
    assert [s["name"] for s in stopped] == ["mlflow", "ray", "qdrant", "postgres"]
    assert all(s["by_itself"] for s in stopped)
    assert [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert find_owned(stack.layout.owner) == {}
    assert supervisors(stack.layout) == []
    assert members(None, str(stack.layout.ray_shelter)) == []
    assert not stack.layout.ray_shelter.exists()
    assert stack.command("status", codes=(3,))["running"] is False
    assert (stack.layout.home / "postgres").is_dir()
