"""`make compose-up` up to the first container: Docker is looked for, the environment file is made."""

import stat
from pathlib import Path

import pytest

from cluster import compose
from cluster.compose import EXAMPLE, ComposeError, base_command, ensure_env, find_docker, read_env, wait_for


def fake_docker(folder: Path, script: str) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_the_environment_file_is_private_and_its_secrets_are_random(tmp_path: Path) -> None:
    first, second = tmp_path / "a.env", tmp_path / "b.env"
    values, others = ensure_env(first, EXAMPLE, "1.2.3"), ensure_env(second, EXAMPLE, "1.2.3")
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    secret = [name for name in values if compose.SECRET.search(name)]
    assert len(secret) == 5
    for name in secret:
        assert len(values[name]) >= 32
        assert values[name] != others[name]
    assert len({values[name] for name in secret}) == len(secret)
    assert values["OPENAI_API_KEY"] == ""
    assert read_env(first) == values


def test_what_stands_there_stays_and_the_tag_follows_the_checkout(tmp_path: Path) -> None:
    path = tmp_path / "compose.env"
    before = ensure_env(path, EXAMPLE, "1.0.0")
    path.write_text(path.read_text().replace("APP_PORT=8000", "APP_PORT=8123") + "MINE=x=y\n")
    path.chmod(0o644)
    after = ensure_env(path, EXAMPLE, "2.0.0")
    assert after == before | {"APP_PORT": "8123", "MINE": "x=y", "AI_ASSISTANT_VERSION": "2.0.0"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_env(path, EXAMPLE, "2.0.0") == after


def test_a_secret_that_came_later_is_added(tmp_path: Path) -> None:
    path = tmp_path / "compose.env"
    before = ensure_env(path, EXAMPLE, "1.0.0")
    path.write_text("\n".join(line for line in path.read_text().splitlines() if "REDIS" not in line))
    after = ensure_env(path, EXAMPLE, "1.0.0")
    assert after["POSTGRES_PASSWORD"] == before["POSTGRES_PASSWORD"]
    assert after["REDIS_PASSWORD"]


def test_without_docker_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ComposeError, match=r"docker is not on PATH.*local-up"):
        find_docker()


@pytest.mark.parametrize(
    ("script", "reason"),
    [("exit 1", "no compose plugin"), ('[ "$1" = compose ]', "its engine does not answer")],
)
def test_a_docker_that_cannot_serve_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    fake_docker(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(ComposeError, match=reason):
        find_docker()


def test_up_calls_compose_with_profiles_and_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = tmp_path / "calls"
    fake_docker(tmp_path / "bin", f'echo "$@" >> {calls}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(compose, "ROOT", tmp_path)
    monkeypatch.setattr(compose, "ENV", tmp_path / "compose.env")
    monkeypatch.setattr(compose, "version", lambda: "1.0.0")
    monkeypatch.setattr(
        compose, "wait_for", lambda url, timeout_s: url == "http://127.0.0.1:8000/health/live"
    )
    compose.up(["monitoring"], True, 1.0)
    last = calls.read_text().splitlines()[-1]
    assert last.endswith("--profile monitoring up --detach")
    assert last.index("compose.yaml") < last.index("compose.dev.yaml")
    assert "keys create" in capsys.readouterr().out


def test_an_application_that_never_answers_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_docker(tmp_path / "bin", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(compose, "ENV", tmp_path / "compose.env")
    monkeypatch.setattr(compose, "wait_for", lambda url, timeout_s: False)
    with pytest.raises(ComposeError, match="does not answer after 1 s"):
        compose.up([], False, 1.0)


def test_down_without_a_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path / "bin", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(compose, "ENV", compose.ROOT / "absent.env")
    with pytest.raises(ComposeError, match="nothing was started"):
        compose.down()


def test_waiting_ends() -> None:
    assert not wait_for("http://127.0.0.1:9/", 0.05)


def test_the_plain_command_has_no_overlay() -> None:
    assert not any("dev" in part for part in base_command("docker", [], dev=False)[4:])
