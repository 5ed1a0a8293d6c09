"""The section suite: floors, a writer, and passages that never come from the document itself."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from assistant.errors import BackendFailed
from assistant.settings import EmbedderSettings, EvalSettings, QdrantSettings, Settings
from assistant.stores.vectors import VectorStore
from evals.cases import SectionCase, sections_of
from evals.documents import DesignDocument, parse
from evals.evidence import SectionEvidence
from evals.suites.sections import data_hash, run
from evals.text_metrics import words

BODY = "Every {0} fails when the {1} is away, and nobody is told about it, " * 3
SETTINGS = Settings(evals=EvalSettings(draws=200))


def document(name: str, subject: str) -> DesignDocument:
    summary = f"This proposal keeps the {subject} of a service alive when its store is away for a long time."
    text = f"# {name}\n\n## Summary\n\n{summary}\n\n"
    for title in ("Motivation", "Drawbacks", "Alternatives", "Unresolved questions"):
        text += f"## {title}\n\n{title}: " + BODY.format(subject, title.lower()) + "\n\n"
    return parse(f"{subject}.md", text)


DOCUMENTS = [document(f"Proposal {n}", s) for n, s in enumerate(("cache", "queue", "index", "ledger"))]
CASES = sections_of(DOCUMENTS)


class Author:
    """Writes what the authors wrote; notes what it was given."""

    def __init__(self) -> None:
        self.given: dict[str, Sequence[str]] = {}

    async def write(self, case: SectionCase, evidence: Sequence[str] = ()) -> str:
        await asyncio.sleep(0)
        self.given[case.id] = evidence
        return case.reference


class Broken:
    async def write(self, case: SectionCase, evidence: Sequence[str] = ()) -> str:
        raise BackendFailed(f"no model for {case.section}")


async def test_floors_need_no_model() -> None:
    result = await run(CASES, SETTINGS)
    assert len(result.per_case) == len(CASES) == 16
    assert {name.partition("/")[0] for name in result.metrics} == {"summary", "other document"}
    assert result.headline == "other document/rouge_l"
    assert result.meta["meteor"] == "not available"
    assert not any("meteor" in name for name in result.metrics)
    assert {c.group for c in result.per_case} == {d.path for d in DOCUMENTS}


async def test_a_writer_is_compared_with_every_floor_on_the_same_cases() -> None:
    author = Author()
    result = await run(CASES, SETTINGS, writer=author, meta={"model": "author"})
    assert result.headline == "model/rouge_l"
    assert result.metrics["model/rouge_l"].mean == 1.0
    assert set(author.given) == {c.id for c in CASES}
    verdicts = {(c.metric, c.second): c.result for c in result.comparisons}
    assert verdicts["rouge_l", "summary"].low > 0
    assert verdicts["rouge_l", "summary"].groups == len(DOCUMENTS)
    assert not any(metric == "words" for metric, _ in verdicts)
    assert result.meta["model"] == "author"


async def test_another_document_means_the_same_section_of_another_one() -> None:
    result = await run(CASES, SETTINGS)
    references = {c.id: c for c in CASES}
    by_text = {c.reference: c for c in CASES}
    for case in result.per_case:
        other = by_text[case.detail["texts"]["other document"]]
        assert other.document != references[case.id].document
        assert other.section == references[case.id].section
    again = await run(list(reversed(CASES)), SETTINGS)
    assert {c.id: c.values for c in again.per_case} == {c.id: c.values for c in result.per_case}


async def test_what_the_writer_raises_is_raised() -> None:
    with pytest.raises(BackendFailed, match="no model for"):
        await run(CASES, SETTINGS, writer=Broken())


def test_the_data_hash_follows_what_is_asked() -> None:
    assert data_hash(CASES) == data_hash(list(CASES))
    assert data_hash(CASES) != data_hash(CASES[1:])


@pytest.mark.integration
async def test_passages_come_from_all_documents_but_the_cases_own_and_its_copies(
    vector_store: VectorStore, qdrant_server: QdrantSettings, models_dir: Path
) -> None:
    settings = SETTINGS.model_copy(
        update={
            "qdrant": qdrant_server.model_copy(update={"collection": "sections"}),
            "embedder": EmbedderSettings(path=models_dir / "all-MiniLM-L6-v2"),
        }
    )
    original = DOCUMENTS[0]
    copy = DesignDocument("elsewhere/copy.md", *(getattr(original, n) for n in original.__slots__[1:]))
    evidence = await SectionEvidence.index(vector_store, settings, [*DOCUMENTS, copy])
    author = Author()
    own = [c for c in CASES if c.document == original.path]
    result = await run(own, settings, pool=CASES, writer=author, evidence=evidence, evidence_in_prompt=True)
    for case in result.per_case:
        retrieved = case.detail["retrieved"]
        assert retrieved
        assert set(retrieved) <= {d.path for d in DOCUMENTS[1:]}
        assert 0 < len(words(case.detail["texts"]["evidence"])) <= 160
        assert len(author.given[case.id]) > 0
    assert ("model", "evidence") in {(c.first, c.second) for c in result.comparisons}
    hidden = await run(own, settings, writer=author, evidence=evidence)
    assert all(not given for given in author.given.values())
    assert "evidence/rouge_l" in hidden.metrics
