"""The registry is told of each change of champions once, and again after it could not hear."""

import sys
from dataclasses import dataclass

import pytest

from assistant.settings import Settings
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.postgres import Database
from serve_app.aliases import AliasKeeper, follower, said_by

M = "small"


@dataclass
class Registry:
    told: int = 0
    failure: str | None = None

    async def follow(self) -> str | None:
        self.told += 1
        return self.failure


@pytest.mark.integration
async def test_every_change_of_champions_is_told_once(database: Database) -> None:
    deployments, registry = DeploymentRepository(database), Registry()
    keeper = AliasKeeper(deployments, registry.follow)
    await keeper.tick()
    await deployments.challenge(M, "a-1", 0.5)
    await keeper.tick()
    assert registry.told == 0, "nobody has become champion"
    await deployments.promote(M, "a-1", "ada")
    for _ in range(3):
        await keeper.tick()
    assert registry.told == 1
    await deployments.rollback(M, "ada")
    await keeper.tick()
    assert registry.told == 2


@pytest.mark.integration
async def test_a_registry_that_failed_is_told_again_after_a_pause(database: Database) -> None:
    deployments, registry, now = DeploymentRepository(database), Registry(failure="down"), [0.0]
    keeper = AliasKeeper(deployments, registry.follow, retry_s=60, clock=lambda: now[0])
    await deployments.promote(M, "a-1", "ada")
    await keeper.tick()
    await keeper.tick()
    assert registry.told == 1
    now[0], registry.failure = 61.0, None
    await keeper.tick()
    await keeper.tick()
    assert registry.told == 2


async def test_a_command_that_fails_gives_its_last_line() -> None:
    assert await said_by([sys.executable, "-c", "pass"], {}) is None
    assert await said_by([sys.executable, "-c", "raise SystemExit('first\\nMLflow is down.')"], {}) == (
        "MLflow is down."
    )
    assert await said_by([sys.executable, "-c", "raise SystemExit(3)"], {}) == "exit code 3"


async def test_without_mlflow_there_is_nothing_to_follow() -> None:
    assert await follower(Settings())() is None
