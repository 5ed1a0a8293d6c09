"""The graph of deployments: `serve run serve_app.app:app`, or `serve run serve_app/config.yaml`.

Nothing happens at import. The builder reads the settings, makes sure that the stores answer, and binds.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from assistant.errors import AssistantError, ConfigurationError
from assistant.llm.catalog import Catalog, load_catalog, read_catalog
from assistant.settings import Settings, load_settings
from assistant.stores.migrations import pending
from assistant.stores.postgres import Database
from assistant.stores.vectors import VectorStore
from serve_app.local_llm import LocalLLM
from serve_app.options import deployment_options
from serve_app.retriever import Retriever
from serve_app.router import Router
from serve_app.scheduler import Scheduler
from serve_app.writer import Writer

ROOT = Path(__file__).resolve().parent.parent
HINT = "Start the local stack with `ai-assistant up`, or set DATABASE_URL and QDRANT_URL."
STORES_LIMIT_S = 20.0


class AppArgs(BaseModel):
    """Arguments of the application: `args:` in a Serve config file, `key=value` at `serve run`.

    Ray skips a misspelt argument's error until the application is built, so look for RUNNING after a deploy.
    """

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    config_file: Path | None = None
    """A settings file instead of `config.yaml` or AI_ASSISTANT_CONFIG."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings that beat the file and the environment, nested as in the file."""
    models: list[dict[str, Any]] | None = None
    """The list of a models file, instead of the one that `llm.models_file` names."""


def app(args: AppArgs) -> Application:
    """The bound graph. Raises ConfigurationError with one sentence when it could not work."""
    settings = load_settings(config_file=args.config_file, overrides=args.settings)
    catalog = (
        load_catalog(models_file(settings), settings.home)
        if args.models is None
        else read_catalog(args.models, settings.home, "args.models of the Serve config")
    )
    check_stores(settings)
    return graph(settings, catalog)


def graph(settings: Settings, catalog: Catalog) -> Application:
    """Router → Retriever, Writer, Scheduler and one LocalLLM per local model."""
    retriever = (
        serve.deployment(Retriever).options(**deployment_options(settings, "Retriever")).bind(settings)
    )
    llms = {
        spec.name: serve.deployment(LocalLLM)
        .options(**deployment_options(settings, spec))
        .bind(spec, settings)
        for spec in catalog.local()
    }
    writer = (
        serve.deployment(Writer)
        .options(**deployment_options(settings, "Writer"))
        .bind(settings, catalog, retriever, llms)
    )
    scheduler = (
        serve.deployment(Scheduler).options(**deployment_options(settings, "Scheduler")).bind(settings)
    )
    return (
        serve.deployment(Router)
        .options(**deployment_options(settings, "Router"))
        .bind(settings, catalog, retriever, writer, scheduler, llms)
    )


def models_file(settings: Settings) -> Path:
    """`llm.models_file`; a relative one is looked for in the working directory, then beside this package."""
    path = settings.llm.models_file
    return path if path.is_absolute() or path.is_file() else ROOT / path


def check_stores(settings: Settings) -> None:
    """Raises ConfigurationError naming the store that does not answer, or the migrations that lack."""
    # Serve may call the builder where a loop is running already.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _check_stores(settings)).result()


async def _check_stores(settings: Settings) -> None:
    try:
        async with asyncio.timeout(STORES_LIMIT_S):
            await _check_postgres(settings)
            await _check_qdrant(settings)
    except TimeoutError:
        raise ConfigurationError(
            f"The stores did not answer within {STORES_LIMIT_S:.0f} s.", hint=HINT
        ) from None


async def _check_postgres(settings: Settings) -> None:
    database = Database(settings.postgres)
    await database.open()
    try:
        await database.ping()
    except ConfigurationError:
        raise
    except AssistantError as error:
        raise ConfigurationError(error.detail, hint=HINT) from None
    finally:
        await database.close()
    assert settings.postgres.url is not None
    missing = await pending(settings.postgres.url.get_secret_value())
    if missing:
        raise ConfigurationError(
            f"{len(missing)} migrations of Postgres are missing, the first is {missing[0]}.",
            hint="Run `python -m assistant.stores.migrations`, or `ai-assistant up`.",
        )


async def _check_qdrant(settings: Settings) -> None:
    store = VectorStore(settings.qdrant)
    try:
        await store.ping()
    except ConfigurationError:
        raise
    except AssistantError as error:
        raise ConfigurationError(error.detail, hint=HINT) from None
    finally:
        await store.close()
