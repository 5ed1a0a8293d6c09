import pytest

from assistant.stores.llm_metrics import LlmMetricLog, LlmMetricRecord
from assistant.stores.postgres import Database, rows

pytestmark = pytest.mark.integration


async def test_the_adapter_that_answered_is_recorded(database: Database) -> None:
    log = LlmMetricLog(database)
    log.record(LlmMetricRecord("llama_cpp", "small", adapter="answerer-3", request_id="r-1"))
    log.record(LlmMetricRecord("llama_cpp", "small", request_id="r-2"))
    await log.close()
    async with database.transaction() as connection:
        found = await rows(
            connection, "select request_id, adapter from ai_assistant.llm_metrics order by request_id"
        )
    assert [tuple(row.values()) for row in found] == [("r-1", "answerer-3"), ("r-2", None)]
