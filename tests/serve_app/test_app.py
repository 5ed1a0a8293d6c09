"""The builder: what it refuses and how it says so; the config file; the options."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from assistant.errors import ConfigurationError
from assistant.llm.catalog import ModelSpec, load_catalog
from assistant.settings import QdrantSettings, Settings, load_settings
from cluster.postgres import LocalPostgres
from serve_app.app import AppArgs, app, check_stores, graph, models_file
from serve_app.options import deployment_options

LLM = ModelSpec(name="small", engine="llama_cpp", path=Path("x"), slots=4, gpus=0.5)


def test_config_file_is_one_that_serve_takes(repo_root: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    raw = yaml.safe_load((repo_root / "serve_app" / "config.yaml").read_text())
    schema = ServeDeploySchema.model_validate(raw)
    (application,) = schema.applications
    assert application.import_path == "serve_app.app:app"
    assert schema.http_options.host == "127.0.0.1"
    AppArgs.model_validate(raw["applications"][0]["args"])


def test_builder_takes_its_model_as_ray_sees_it() -> None:
    # A postponed annotation would be text, and Ray would then skip all validation.
    assert app.__annotations__["args"] is AppArgs


def test_misspelt_arguments_and_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="setings"):
        AppArgs.model_validate({"setings": {}})
    with pytest.raises(ConfigurationError, match=r"serve\.prot"):
        app(AppArgs(settings={"serve": {"prot": 1}}))


@pytest.mark.parametrize(
    ("stores", "message"),
    [
        ({}, "Postgres has no address"),
        ({"postgres": {"url": "postgresql://u:secret@127.0.0.1:9/d", "pool_timeout_s": 0.3}}, "Postgres"),
    ],
)
def test_missing_stores_are_one_sentence_with_a_way_out(stores: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_stores(load_settings({}, overrides=stores))
    assert message in caught.value.detail
    assert caught.value.hint
    assert "secret" not in str(caught.value)


@pytest.mark.integration
def test_qdrant_that_is_away_is_named(database_url: str) -> None:
    settings = load_settings(
        {}, overrides={"postgres": {"url": database_url}, "qdrant": {"url": "http://127.0.0.1:9"}}
    )
    with pytest.raises(ConfigurationError, match="Qdrant"):
        check_stores(settings)


@pytest.mark.integration
def test_schema_that_is_not_there_is_named(postgres_server: LocalPostgres) -> None:
    postgres_server.ensure_database("unmigrated")
    settings = load_settings({}, overrides={"postgres": {"url": postgres_server.url("unmigrated")}})
    with pytest.raises(ConfigurationError, match="migrations of Postgres are missing"):
        check_stores(settings)


@pytest.mark.integration
def test_graph_binds_every_part_when_the_stores_answer(
    database_url: str, qdrant_server: QdrantSettings, repo_root: Path
) -> None:
    key = qdrant_server.api_key
    overrides = {
        "postgres": {"url": database_url},
        "qdrant": {"url": qdrant_server.url, "api_key": key.get_secret_value() if key else None},
    }
    bound = app(AppArgs(settings=overrides))
    assert bound._bound_deployment.name == "Router"
    check_stores(load_settings({}, overrides=overrides))


@pytest.mark.integration
def test_models_may_come_with_the_arguments(
    database_url: str, qdrant_server: QdrantSettings, repo_root: Path
) -> None:
    key = qdrant_server.api_key
    overrides = {
        "postgres": {"url": database_url},
        "qdrant": {"url": qdrant_server.url, "api_key": key.get_secret_value() if key else None},
    }
    models = [{"name": "given", "engine": "llama_cpp", "path": "given.gguf"}]
    bound = app(AppArgs(settings=overrides, models=models))
    assert list(bound._bound_deployment.init_args[-1]) == ["given"]
    with pytest.raises(ConfigurationError, match=r"args\.models.*model given: engine"):
        app(AppArgs(settings=overrides, models=[{"name": "given", "engine": "none"}]))


def test_only_local_models_get_a_deployment(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(
        "models:\n"
        "  - {name: here, engine: llama_cpp, path: x.gguf}\n"
        "  - {name: there, engine: ollama, remote_model: q}\n"
    )
    settings = load_settings({}, overrides={"postgres": {"url": "postgresql://u@h/d"}})
    bound = graph(settings, load_catalog(file, tmp_path))
    llms = bound._bound_deployment.init_args[-1]
    assert list(llms) == ["here"]
    assert llms["here"]._bound_deployment.name == "LocalLLM-here"


def test_models_file_is_found_from_anywhere(
    repo_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert models_file(load_settings({})) == repo_root / "models.yaml"
    (tmp_path / "models.yaml").write_text("models: []")
    assert models_file(load_settings({})) == Path("models.yaml")


@pytest.mark.parametrize("part", ["Router", "Retriever", "Writer", "Scheduler", LLM])
def test_every_part_says_what_ray_would_guess_wrong(part: Any) -> None:
    options = deployment_options(load_settings({}), part)
    assert options["ray_actor_options"]["num_cpus"] == 0
    assert options["max_ongoing_requests"] > 5
    assert options["graceful_shutdown_timeout_s"] == 10.0


def test_limits_of_serve_lie_above_our_own() -> None:
    settings: Settings = load_settings({}, overrides={"serve": {"max_queued_requests": 0}})
    router = deployment_options(settings, "Router")
    assert router["max_ongoing_requests"] > 2 * settings.serve.max_ongoing_requests
    llm = deployment_options(settings, LLM)
    assert llm["max_ongoing_requests"] > LLM.slots
    assert llm["ray_actor_options"]["num_gpus"] == 0.5
    assert llm["name"] == "LocalLLM-small"
