"""Making engines, and what goes wrong before the first token. What they do then: tests/contract."""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from assistant.errors import BackendFailed, ConfigurationError
from assistant.llm.catalog import ModelSpec
from assistant.llm.engines import create_engine, gguf_file, hf_model
from assistant.llm.engines.orphans import OrphanGuard, marked
from assistant.llm.types import ChatRequest, Message


def spec(**fields: Any) -> ModelSpec:
    return ModelSpec.model_validate({"name": "m", "engine": "llama_cpp", "path": "m", "slots": 1, **fields})


def test_missing_weights_say_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"python -m cluster\.weights"):
        create_engine(spec(), tmp_path)


def test_a_folder_must_hold_exactly_one_gguf(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    with pytest.raises(ConfigurationError, match="holds 0 GGUF files"):
        gguf_file(spec(), tmp_path)
    (folder / "a.gguf").touch()
    assert gguf_file(spec(), tmp_path) == folder / "a.gguf"
    (folder / "b.gguf").touch()
    with pytest.raises(ConfigurationError, match="holds 2"):
        gguf_file(spec(), tmp_path)
    assert gguf_file(spec(path="m/b.gguf"), tmp_path) == folder / "b.gguf"


def test_vllm_takes_a_folder_its_hf_folder_or_a_hub_id(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    (folder / "hf").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match=r"config\.json"):
        hf_model(spec(engine="vllm"), tmp_path)
    (folder / "hf" / "config.json").touch()
    assert hf_model(spec(engine="vllm"), tmp_path) == str(folder / "hf")
    assert hf_model(spec(engine="vllm", path=None, hub_id="org/model"), tmp_path) == "org/model"


def test_a_missing_package_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for engine in ("vllm", "llama_cpp"):
        with pytest.raises(ConfigurationError, match="pip install"):
            create_engine(spec(engine=engine), tmp_path)


def test_wrong_options_are_named(tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    with pytest.raises(ConfigurationError, match=r"m in models\.yaml.*options\.layers"):
        create_engine(spec(options={"layers": 3}), tmp_path)


def test_a_remote_server_is_no_engine(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="remote server"):
        create_engine(spec(engine="ollama", path=None, remote_model="x"), tmp_path)


@pytest.mark.integration
async def test_a_broken_gguf_is_refused_and_the_engine_never_answers(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + b"\0" * 100)
    engine = create_engine(spec(path="m.gguf"), tmp_path)
    assert (await engine.health()).state == "loading"
    with pytest.raises(ConfigurationError, match=r"could not load .*m\.gguf"):
        await engine.start()
    with pytest.raises(BackendFailed):
        await anext(engine.stream(ChatRequest("m", (Message("user", "x"),)), "r"))
    await engine.stop()
    assert (await engine.health()).state == "down"


@pytest.mark.integration
async def test_llama_cpp_leaves_signals_and_no_socket_behind(models_dir: Path) -> None:
    """Its server part could take over SIGINT and SIGTERM, and it always opens a listener of its own."""
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    caught, listening = _caught(), _listening()
    engine = create_engine(spec(path="smollm2-135m-instruct", context_tokens=256), models_dir)
    await engine.start()
    try:
        assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
        assert _caught() == caught
        assert _listening() <= listening
    finally:
        await engine.stop()


def _listening() -> set[int]:
    """Ports of this process; a Ray driver in it has some of its own."""
    found = psutil.Process().net_connections("tcp")
    return {c.laddr.port for c in found if c.status == psutil.CONN_LISTEN}


def _caught() -> str | None:
    """The process's caught signals as the kernel knows them; None where /proc is not."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    # Bit 33 belongs to the thread library.
    mask = int(next(li for li in status.read_text().splitlines() if li.startswith("SigCgt")).split()[1], 16)
    return f"{mask & 0xFFFF_FFFF:x}"


OWNER = """
import subprocess, sys, time
from assistant.llm.engines.orphans import OrphanGuard
guard = OrphanGuard()
with guard.marking():
    child = subprocess.Popen([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
                             stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="vLLM, and so its guard, is for Linux")


@linux_only
def test_children_of_a_killed_owner_are_killed(repo_root: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, cwd=repo_root)
    assert owner.stdout is not None
    with owner.stdout as out:
        child = psutil.Process(int(out.readline()))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    child.wait(timeout=30)
    assert not child.is_running()


@linux_only
def test_a_released_guard_kills_only_when_told() -> None:
    def start(guard: OrphanGuard) -> subprocess.Popen[bytes]:
        with guard.marking():
            return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    guard, other = OrphanGuard(), OrphanGuard()
    kept, killed = start(guard), start(other)
    assert "ENGINE_OWNER_TOKEN" not in os.environ
    guard.release()
    other.release(kill=True)
    assert killed.wait(timeout=30) == -signal.SIGKILL
    assert kept.poll() is None
    kept.kill()
    kept.wait()


@linux_only
def test_a_stranger_is_never_marked() -> None:
    assert marked("0" * 32) == []
