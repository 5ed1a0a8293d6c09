"""Sources are named once and brought up to date."""

import pytest

from assistant.errors import InvalidInput
from assistant.stores.postgres import Database
from assistant.stores.sources import SourceRepository

pytestmark = pytest.mark.integration


async def test_ensuring_twice_updates_one_source(database: Database) -> None:
    sources = SourceRepository(database)
    first = await sources.ensure("docs", "search_sources", "folder", {"path": "a"})
    second = await sources.ensure("docs", "learning_materials", "folder", {"path": "b"})
    assert second.id == first.id
    assert (second.source_type, second.config) == ("learning_materials", {"path": "b"})
    await sources.ensure("all", "search_sources", "python_packages", {})
    assert [source.name for source in await sources.list()] == ["all", "docs"]
    counts = await sources.counts()
    assert {name: c.documents for name, c in counts.items()} == {"all": 0, "docs": 0}


@pytest.mark.parametrize(("name", "kind"), [("", "folder"), ("x" * 256, "folder"), ("docs", "")])
async def test_bad_names_are_refused(database: Database, name: str, kind: str) -> None:
    with pytest.raises(InvalidInput, match=r"must be 1 to \d+ valid"):
        await SourceRepository(database).ensure(name, "search_sources", kind, {})
