"""Records written behind the request: none lost while they can be kept, none kept without bound."""

import asyncio
import math
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from psycopg.rows import DictRow
from pydantic import SecretStr

from assistant.settings import PostgresSettings
from assistant.stores.llm_metrics import LlmMetricLog, LlmMetricRecord
from assistant.stores.migrations import migrate
from assistant.stores.postgres import Database, rows
from assistant.stores.searches import SearchLog, SearchRecord
from assistant.stores.sessions import SessionRepository
from cluster.postgres import LocalPostgres

pytestmark = pytest.mark.integration


class CountingMeter:
    def __init__(self) -> None:
        self.added: list[tuple[str, float, dict[str, str]]] = []

    def add(self, name: str, value: float = 1.0, **labels: str) -> None:
        self.added.append((name, value, labels))

    def observe(self, name: str, value: float, **labels: str) -> None: ...

    def set(self, name: str, value: float, **labels: str) -> None: ...


async def stored(database: Database, table: str = "search_queries") -> list[DictRow]:
    return await database.repeatable(lambda c: rows(c, f"select * from ai_assistant.{table} order by id"))


async def drained(log: SearchLog) -> None:
    async with asyncio.timeout(60):
        while log.waiting:
            await asyncio.sleep(0.05)


async def test_closing_writes_what_waits(database: Database) -> None:
    session = await SessionRepository(database).touch(None, "ada", {})
    chunk = uuid4()
    log = SearchLog(database)
    log.record(
        SearchRecord(
            "disk\tfull\n\\N \x00",
            "ada",
            session,
            "r1",
            "hybrid",
            {"project": "x"},
            2,
            12.6,
            scores=(0.75, 1e9),
            chunk_ids=(chunk,),
            timings_ms={"dense": 3.5},
        )
    )
    log.record(SearchRecord("nothing"))
    await log.close()
    first, second = await stored(database)
    assert (first["query_text"], first["principal_id"], first["session_id"]) == (
        "disk\tfull\n\\N ",
        "ada",
        session,
    )
    assert (first["filters"], first["response_time_ms"], first["results_count"]) == ({"project": "x"}, 13, 2)
    assert first["relevance_scores"] == [Decimal("0.75"), Decimal(999999)]
    assert (first["chunk_ids"], first["timings_ms"]) == ([chunk], {"dense": 3.5})
    assert (second["query_text"], second["relevance_scores"], second["session_id"]) == ("nothing", [], None)


async def test_records_are_written_without_being_asked(database: Database) -> None:
    log = SearchLog(database)
    for n in range(1500):
        log.record(SearchRecord(str(n)))
    await drained(log)
    log.record(SearchRecord("later"))
    await drained(log)
    assert len(await stored(database)) == 1501
    await log.close()
    assert log.dropped == 0


async def test_one_bad_record_does_not_take_the_others(database: Database) -> None:
    meter = CountingMeter()
    log = SearchLog(database, meter)
    unknown_session = uuid4()
    for session in (None, unknown_session, None):
        log.record(SearchRecord("q", session_id=session))
    await log.flush()
    assert len(await stored(database)) == 2
    assert log.dropped == 1
    assert meter.added == [("ai_assistant_records_dropped_total", 1, {"record": "search_queries"})]


async def test_a_batch_written_twice_is_there_once(database: Database) -> None:
    log = SearchLog(database)
    record = SearchRecord("q")
    log.record(record)
    await log.flush()
    log.record(record)
    log.record(SearchRecord("r"))
    await log.flush()
    assert [row["query_text"] for row in await stored(database)] == ["q", "r"]
    assert log.dropped == 0


async def test_records_wait_for_postgres_bounded(tmp_path: Path) -> None:
    server = LocalPostgres(tmp_path / "pg")
    await asyncio.to_thread(server.start)
    server.ensure_database()
    await migrate(server.url())
    database = Database(PostgresSettings(url=SecretStr(server.url()), pool_timeout_s=1))
    await database.open()
    meter = CountingMeter()
    log = SearchLog(database, meter, capacity=50)
    try:
        await asyncio.to_thread(server.stop)
        for n in range(60):
            log.record(SearchRecord(str(n)))
        assert log.dropped == 10
        await asyncio.to_thread(server.start)
        await drained(log)
        assert sorted(int(row["query_text"]) for row in await stored(database)) == list(range(50))
        await asyncio.to_thread(server.stop)
        log.record(SearchRecord("lost"))
        await log.close()
        assert log.dropped == 11
        assert sum(value for _, value, _ in meter.added) == 11
    finally:
        await database.close()
        await asyncio.to_thread(server.stop)


async def test_a_record_of_the_wrong_shape_never_reaches_the_caller(database: Database) -> None:
    log = LlmMetricLog(database)
    log.record(LlmMetricRecord("x", "m", response_time_ms=math.nan))
    log.record(LlmMetricRecord("x", "m", tokens_input="many"))  # type: ignore[arg-type]
    log.record(LlmMetricRecord("x", "m"))
    await log.close()
    assert len(await stored(database, "llm_metrics")) == 1
    assert log.dropped == 2


async def test_llm_metrics_keep_cost_and_outcome(database: Database) -> None:
    log = LlmMetricLog(database)
    log.record(
        LlmMetricRecord(
            "openai", "m" * 200, "generation", 120.4, 30.2, 10, 20, Decimal("0.000123"), principal_id="ada"
        )
    )
    log.record(LlmMetricRecord("ollama", "m", success=False, error_message="refused\x00"))
    await log.close()
    good, bad = await stored(database, "llm_metrics")
    assert (good["model"], good["response_time_ms"], good["first_token_ms"]) == ("m" * 100, 120, 30)
    assert (good["tokens_input"], good["tokens_output"], good["cost_usd"]) == (10, 20, Decimal("0.000123"))
    assert (good["success"], good["principal_id"]) == (True, "ada")
    assert (bad["success"], bad["error_message"], bad["cost_usd"]) == (False, "refused", None)
    assert isinstance(good["id"], UUID)
