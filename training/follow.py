"""Bring the registry's aliases after what serves, which the table of deployments decides.

The Scheduler starts this when a champion has changed, whoever changed it. Run it by hand after MLflow's
database was restored:

    python -m training.follow
"""

import argparse
import asyncio

from assistant.errors import AssistantError
from assistant.settings import Settings, load_settings
from assistant.stores.deployments import Deployment, DeploymentRepository
from assistant.stores.postgres import Database
from training.registry import Registry


def follow(tracking_uri: str | None, champion: Deployment) -> bool:
    """Whether the registry knows this champion; adapters of other origin have no version there.

    Raises NotFound for a version that the registry has lost, Unavailable while MLflow does not answer.
    """
    if champion.adapter is None:
        Registry(tracking_uri).follow(None)
        return True
    model, _, number = champion.adapter.rpartition("-")
    if not model or not number.isdigit():
        return False
    Registry(tracking_uri, model).follow(int(number))
    return True


async def champions(settings: Settings) -> list[Deployment]:
    database = Database(settings.postgres)
    await database.open()
    try:
        live = await DeploymentRepository(database).active()
    finally:
        await database.close()
    return [record for record in live if record.alias == "champion"]


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    try:
        settings = load_settings()
        for champion in asyncio.run(champions(settings)):
            follow(settings.mlflow.tracking_uri, champion)
    except AssistantError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
