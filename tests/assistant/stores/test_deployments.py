"""Champion, challenger, previous: moved in one piece, told apart, and never twice."""

import asyncio
from typing import Any

import pytest

from assistant.errors import InvalidInput, NotFound
from assistant.stores.deployments import Deployment, DeploymentRepository
from assistant.stores.postgres import Database

pytestmark = pytest.mark.integration

M = "small"


@pytest.fixture
def deployments(database: Database) -> DeploymentRepository:
    return DeploymentRepository(database)


async def live(deployments: DeploymentRepository, model: str = M) -> dict[str, str | None]:
    return {d.alias: d.adapter for d in await deployments.active(model)}


async def decisions(deployments: DeploymentRepository) -> list[tuple[str | None, str, bool]]:
    return [(d.adapter, d.decision, d.retired_at is None) for d in await deployments.history(M)]


async def test_a_challenger_is_offered_with_its_lineage(deployments: DeploymentRepository) -> None:
    made = await deployments.challenge(
        M, "a-1", 0.1, registry_version=1, data_hash="d", metrics={"rouge": 0.3}, mlflow_run_id="r"
    )
    assert (made.alias, made.decision, made.share, made.retired_at) == ("challenger", "candidate", 0.1, None)
    assert (made.registry_version, made.data_hash) == ("1", "d")
    assert (made.metrics, made.lineage) == ({"rouge": 0.3}, {"mlflow_run_id": "r"})
    again = await deployments.challenge(M, "a-1", 0.5, metrics={"bleu": 0.2})
    assert (again.id, again.share, again.metrics) == (made.id, 0.5, {"rouge": 0.3, "bleu": 0.2})
    assert await live(deployments) == {"challenger": "a-1"}
    assert await deployments.active("other") == []


async def test_another_challenger_takes_the_place_of_the_first(deployments: DeploymentRepository) -> None:
    await deployments.challenge(M, "a-1", 0)
    await deployments.challenge(M, "a-2", 0)
    assert await live(deployments) == {"challenger": "a-2"}
    assert await decisions(deployments) == [("a-2", "candidate", True), ("a-1", "withdrawn", False)]


async def test_promoted_again_by_name_it_keeps_its_origin(deployments: DeploymentRepository) -> None:
    origin = {"registry_version": "1", "data_hash": "d", "metrics": {"rouge": 0.3}, "mlflow_run_id": "r"}
    await deployments.promote(M, "a-1", "loop", **origin)
    await deployments.rollback(M, "ada")
    again = await deployments.promote(M, "a-1", "ada")
    assert (again.registry_version, again.data_hash, again.metrics) == ("1", "d", {"rouge": 0.3})
    assert (again.lineage, again.decided_by) == ({"mlflow_run_id": "r"}, "ada")


async def test_promotion_keeps_the_lineage_and_what_was_before(deployments: DeploymentRepository) -> None:
    offered = await deployments.challenge(M, "a-1", 0.2, data_hash="d")
    champion = await deployments.promote(M, "a-1", "ada", gate="better")
    assert (champion.id, champion.alias, champion.decision) == (offered.id, "champion", "promoted")
    assert (champion.data_hash, champion.decided_by, champion.share) == ("d", "ada", 0)
    assert champion.lineage == {"gate": "better"}
    assert await live(deployments) == {"champion": "a-1", "previous": None}
    await deployments.promote(M, "a-2", "ada")
    assert await live(deployments) == {"champion": "a-2", "previous": "a-1"}
    await deployments.promote(M, "a-3", "ada")
    assert await live(deployments) == {"champion": "a-3", "previous": "a-2"}


async def test_rollback_goes_back_one_step_at_a_time_to_the_base(deployments: DeploymentRepository) -> None:
    for name in ("a-1", "a-2"):
        await deployments.promote(M, name, "gate")
    assert (await deployments.rollback(M, "ada")).adapter == "a-1"
    assert await live(deployments) == {"champion": "a-1"}
    assert (await deployments.rollback(M, "ada")).adapter is None
    assert await live(deployments) == {"champion": None}
    assert (await deployments.rollback(M, "ada")).adapter is None
    assert ("a-2", "rolled_back", False) in await decisions(deployments)
    await deployments.promote(M, "a-3", "gate")
    assert await live(deployments) == {"champion": "a-3", "previous": None}
    assert (await deployments.rollback(M, "ada")).adapter is None


async def test_rollback_of_a_named_champion_happens_once(deployments: DeploymentRepository) -> None:
    for name in ("a-1", "a-2"):
        await deployments.promote(M, name, "gate")
    for _ in range(2):
        assert (await deployments.rollback(M, "ada", "a-2")).adapter == "a-1"


async def test_rollback_where_nothing_was_promoted_is_the_base(deployments: DeploymentRepository) -> None:
    assert (await deployments.rollback(M, "ada")).adapter is None
    assert (await deployments.rollback(M, "ada")).alias == "champion"


async def test_a_rejected_adapter_is_remembered_and_leaves(deployments: DeploymentRepository) -> None:
    await deployments.challenge(M, "a-1", 0.1)
    refused = await deployments.reject(M, "a-1", "gate", {"rouge": 0.1}, "worse on the frozen set")
    unseen = await deployments.reject(M, "a-2", "gate", {}, "worse")
    assert await live(deployments) == {}
    assert refused.metrics == {"rouge": 0.1}
    assert refused.lineage["reason"] == "worse on the frozen set"
    assert (unseen.decision, unseen.retired_at is not None) == ("rejected", True)
    assert (await deployments.reject(M, "a-2", "gate", {}, "worse")).id == unseen.id
    assert len(await deployments.history(M)) == 2


async def test_repeating_a_change_changes_nothing(deployments: DeploymentRepository) -> None:
    await deployments.challenge(M, "a-1", 0.1)
    for _ in range(2):
        await deployments.promote(M, "a-1", "gate")
    assert (await deployments.challenge(M, "a-1", 0.1)).alias == "champion"
    assert await live(deployments) == {"champion": "a-1", "previous": None}
    assert await deployments.withdraw(M) is None


async def test_the_share_is_the_challengers(deployments: DeploymentRepository) -> None:
    with pytest.raises(NotFound, match="no challenger"):
        await deployments.set_share(M, 0.5)
    await deployments.challenge(M, "a-1", 0)
    assert (await deployments.set_share(M, 0.5)).share == 0.5
    withdrawn = await deployments.withdraw(M)
    assert withdrawn is not None
    assert withdrawn.decision == "withdrawn"


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda r: r.challenge(M, "a-1", 1.5), "share"),
        (lambda r: r.challenge(M, "", 0.5), "adapter"),
        (lambda r: r.promote("", "a-1", "ada"), "model"),
    ],
)
async def test_wrong_values_are_named(deployments: DeploymentRepository, call: Any, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await call(deployments)
    assert caught.value.extra["field"] == field


async def test_a_name_that_leads_elsewhere_is_not_stored(deployments: DeploymentRepository) -> None:
    with pytest.raises(InvalidInput):
        await deployments.promote(M, "../a-1", "ada")
    assert await live(deployments) == {}


async def test_changes_at_once_leave_one_champion(deployments: DeploymentRepository) -> None:
    names = [f"a-{n}" for n in range(6)]
    await asyncio.gather(
        *(deployments.promote(M, name, "gate") for name in names),
        *(deployments.challenge(M, name, 0.1) for name in names),
        deployments.rollback(M, "ada"),
    )
    active: list[Deployment] = await deployments.active(M)
    assert len(active) == len({d.alias for d in active})
    assert sum(d.alias == "champion" for d in active) == 1
