"""Migrations: once, in order, never edited, never half."""

import asyncio
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from assistant.errors import ConfigurationError, StoreUnavailable
from assistant.stores.migrations import main, migrate, pending, read
from cluster.postgres import LocalPostgres

pytestmark = pytest.mark.integration

TABLES = {
    *("sessions", "rfcs", "learning_examples", "search_queries", "data_sources", "llm_metrics"),
    *("users", "api_keys", "documents", "ingestion_runs", "ingestion_errors", "jobs", "job_events"),
    *("rfc_stages", "rfc_citations", "answers", "feedback", "leases", "budgets", "reservations", "audit_log"),
    *("experiments", "model_deployments"),
}
ROADMAP = {
    "sessions": "id user_id created_at metadata",
    "rfcs": "id session_id title content template_used llm_provider generation_time_ms tokens_used"
    " cost_usd created_at metadata",
    "learning_examples": "id rfc_id user_feedback feedback_text quality_score improvement_areas created_at",
    "search_queries": "id session_id query_text query_vector_id results_count response_time_ms"
    " relevance_scores created_at",
    "data_sources": "id source_type source_name file_path vector_ids processing_status quality_score"
    " created_at updated_at",
    "llm_metrics": "id provider model request_type response_time_ms tokens_input tokens_output cost_usd"
    " success error_message created_at",
}


@pytest.fixture
def empty_url(postgres_server: LocalPostgres) -> str:
    name = f"migrations_{uuid4().hex}"
    postgres_server.ensure_database(name)
    return postgres_server.url(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text("create table ai_assistant.first (n int);")
    (tmp_path / "0002_second.sql").write_text("create table ai_assistant.second (n int);")
    return tmp_path


def query(url: str, text: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(text.encode()).fetchall()


def tables(url: str) -> set[object]:
    found = query(url, "select tablename from pg_tables where schemaname = 'ai_assistant'")
    return {name for (name,) in found} - {"schema_migrations"}


async def test_the_whole_schema_is_there(database_url: str) -> None:
    assert tables(database_url) == TABLES
    assert await pending(database_url) == []
    columns: dict[object, set[object]] = {}
    for table, column, kind in query(
        database_url,
        "select table_name, column_name, data_type from information_schema.columns"
        " where table_schema = 'ai_assistant'",
    ):
        columns.setdefault(table, set()).add(column)
        assert kind != "timestamp without time zone", f"{table}.{column}"
    assert {t: set(c.split()) - columns[t] for t, c in ROADMAP.items()} == {t: set() for t in ROADMAP}


async def test_foreign_keys_are_indexed(database_url: str) -> None:
    """Or deleting a parent reads the whole child table."""
    bare = query(
        database_url,
        """
        select c.conrelid::regclass, a.attname from pg_constraint c
        join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
        where c.contype = 'f' and c.connamespace = 'ai_assistant'::regnamespace and not exists (
            select from pg_index i where i.indrelid = c.conrelid and i.indkey[0] = c.conkey[1])
        """,
    )
    assert [str(row) for row in bare if "model_deployments" not in str(row)] == []


async def test_a_second_run_does_nothing(empty_url: str, folder: Path) -> None:
    assert await pending(empty_url, folder) == ["0001_first", "0002_second"]
    assert tables(empty_url) == set()
    assert await migrate(empty_url, folder) == ["0001_first", "0002_second"]
    assert await migrate(empty_url, folder) == []
    (folder / "0003_third.sql").write_text("alter table ai_assistant.first add column m int;")
    assert await pending(empty_url, folder) == ["0003_third"]
    assert await migrate(empty_url, folder) == ["0003_third"]


async def test_of_five_concurrent_runners_one_applies(empty_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_url) for _ in range(5)))
    assert sorted(map(len, applied)) == [0, 0, 0, 0, len(read())]


async def test_an_edited_file_is_named(empty_url: str, folder: Path) -> None:
    await migrate(empty_url, folder)
    (folder / "0002_second.sql").write_text("create table ai_assistant.second (n bigint);")
    for check in (migrate, pending):
        with pytest.raises(ConfigurationError, match=r"0002_second\.sql was edited"):
            await check(empty_url, folder)


async def test_line_ends_are_no_edit(empty_url: str, folder: Path) -> None:
    (folder / "0002_second.sql").write_bytes(b"create table ai_assistant.second\n(n int);\n")
    await migrate(empty_url, folder)
    (folder / "0002_second.sql").write_bytes(b"create table ai_assistant.second\r\n(n int);\r\n")
    assert await pending(empty_url, folder) == []


async def test_a_failing_file_leaves_nothing_of_itself(empty_url: str, folder: Path) -> None:
    (folder / "0003_third.sql").write_text("create table ai_assistant.third (n int); select 1 / 0;")
    with pytest.raises(ConfigurationError, match=r"0003_third\.sql failed: division by zero"):
        await migrate(empty_url, folder)
    assert tables(empty_url) == {"first", "second"}
    assert await pending(empty_url, folder) == ["0003_third"]


async def test_statements_outside_a_transaction_with_waiting_runners(empty_url: str, folder: Path) -> None:
    (folder / "0003_index.sql").write_text(
        "-- no-transaction\ncreate index concurrently first_n on ai_assistant.first (n);"
    )
    applied = await asyncio.gather(*(migrate(empty_url, folder) for _ in range(4)))
    assert sorted(map(len, applied)) == [0, 0, 0, 3]
    assert query(
        empty_url, "select indisvalid from pg_index where indexrelid = 'ai_assistant.first_n'::regclass"
    )


async def test_versions_of_a_newer_release_are_left_alone(empty_url: str, folder: Path) -> None:
    await migrate(empty_url, folder)
    (folder / "0002_second.sql").unlink()
    assert await migrate(empty_url, folder) == []
    assert tables(empty_url) == {"first", "second"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("3_third.sql", "not named like"), ("0002_again.sql", "same number"), ("0003.sql", "not named like")],
)
def test_wrong_file_names_are_refused(folder: Path, name: str, message: str) -> None:
    (folder / name).write_text("select 1;")
    with pytest.raises(ConfigurationError, match=message):
        read(folder)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No migrations"):
        read(tmp_path)


async def test_wrong_addresses_are_told_apart(empty_url: str) -> None:
    with pytest.raises(ConfigurationError, match="password authentication failed"):
        await migrate(empty_url.replace("assistant:", "assistant:wrong", 1))
    with pytest.raises(ConfigurationError, match="does not exist"):
        await migrate(empty_url + "_other")
    with pytest.raises(StoreUnavailable):
        await migrate("postgresql://assistant:x@127.0.0.1:1/none")


def test_the_command_applies_them_and_says_so(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_url)
    main()
    assert capsys.readouterr().out.startswith("applied: 0001_")
    main()
    assert "up to date" in capsys.readouterr().out
    monkeypatch.delenv("DATABASE_URL")
    with pytest.raises(ConfigurationError, match="no address"):
        main()
