"""Redeployment on a change of code: once per state, with nothing but the digest added to the config."""

from pathlib import Path
from typing import Any

import pytest

from cluster.ray_node import serve_config
from cluster.reload import VARIABLE, Reloader, digest, stamped
from cluster.services import SERVE_CONFIG


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "module.py").write_text("A = 1\n")
    return tmp_path


def test_the_digest_follows_sources_alone(code: Path) -> None:
    before = digest([code])
    (code / "module.pyc").write_text("compiled")
    assert digest([code]) == before
    (code / "module.py").write_text("A = 2\n")
    assert digest([code]) != before


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::DeprecationWarning:pydantic")
def test_only_the_digest_is_added_and_serve_takes_it() -> None:
    from ray.serve.schema import ServeDeploySchema

    config = serve_config(SERVE_CONFIG, "0.0.0.0", 8000)
    made = stamped(config, "abc")
    ServeDeploySchema.model_validate(made)
    (application,) = made["applications"]
    assert application.pop("runtime_env") == {"env_vars": {VARIABLE: "abc"}}
    assert made == config


def test_each_state_is_deployed_once(code: Path) -> None:
    deployed: list[dict[str, Any]] = []
    said: list[str] = []
    reloader = Reloader({"applications": [{}]}, [code], deployed.append, said.append)
    assert not reloader.changed()
    (code / "module.py").write_text("A = 2\n")
    assert reloader.changed()
    assert not reloader.changed()
    assert len(deployed) == 1
    assert said[-1].startswith("deployed ")


def test_code_that_does_not_deploy_is_reported_and_tried_again(code: Path) -> None:
    tries = 0

    def refuse(config: dict[str, Any]) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("Traceback …\nSyntaxError: invalid syntax")

    said: list[str] = []
    reloader = Reloader({"applications": [{}]}, [code], refuse, said.append)
    (code / "module.py").write_text("A = (\n")
    assert not reloader.changed()
    assert said == ["not deployed: SyntaxError: invalid syntax"]
    assert reloader.changed()
