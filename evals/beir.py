"""Judged collections in BEIR's form: `corpus.jsonl`, `queries.jsonl`, `qrels/<split>.tsv` (Thakur et al. 2021).

Corpus lines have `_id`, `title`, `text`; query lines `_id`, `text`; judgements are `query-id, corpus-id, score`
between tabs below a line of headings.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from assistant.errors import InvalidInput
from evals.cases import json_lines, text_field, wrong_line

_HEADINGS = ["query-id", "corpus-id", "score"]


@dataclass(frozen=True, slots=True)
class JudgedCollection:
    """`documents` are `title + " " + text`. Only the queries judged in this split are kept.

    `judgements` map query → document → grade. `data_hash` covers everything that was read.
    """

    name: str
    split: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]
    data_hash: str


def load_beir(folder: Path, split: str = "test") -> JudgedCollection:
    """Read one split. Raises InvalidInput naming the file, and the line that is wrong."""
    corpus, queries, qrels = (
        folder / "corpus.jsonl",
        folder / "queries.jsonl",
        folder / "qrels" / f"{split}.tsv",
    )
    for file in (corpus, queries, qrels):
        if not file.is_file():
            raise InvalidInput(
                f"{file} does not exist.",
                hint="A judged collection needs corpus.jsonl, queries.jsonl and qrels/<split>.tsv.",
                field="--data",
            )
    documents = _texts(corpus, titled=True)
    asked = _texts(queries, titled=False)
    judgements = _judgements(qrels, documents, asked)
    return JudgedCollection(
        name=folder.name,
        split=split,
        documents=documents,
        queries={query: asked[query] for query in judgements},
        judgements=judgements,
        data_hash=_hash(corpus, queries, qrels),
    )


def _texts(file: Path, titled: bool) -> dict[str, str]:
    texts: dict[str, str] = {}
    for line, record in json_lines(file):
        id_ = text_field(file, line, record, "_id")
        if id_ in texts:
            raise wrong_line(file, line, f"the _id {id_!r} is used twice")
        title = text_field(file, line, record, "title", default="") if titled else ""
        text = f"{title} {text_field(file, line, record, 'text', default='')}".strip()
        if not text:
            raise wrong_line(file, line, "field 'text' is empty")
        texts[id_] = text
    if not texts:
        raise InvalidInput(f"{file} is empty.", field="--data")
    return texts


def _judgements(
    file: Path, documents: Mapping[str, str], queries: Mapping[str, str]
) -> dict[str, dict[str, int]]:
    judgements: dict[str, dict[str, int]] = {}
    lines = file.read_text(encoding="utf-8").splitlines()
    if not lines or lines[0].split("\t") != _HEADINGS:
        raise wrong_line(file, 1, f"must be the headings {', '.join(_HEADINGS)} with tabs between them")
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        fields = line.split("\t")
        if len(fields) != 3:
            raise wrong_line(file, number, f"has {len(fields)} fields between tabs, not 3")
        query, document, grade = fields
        if not grade.strip().isdecimal():
            raise wrong_line(file, number, f"the score {grade!r} is no whole number of 0 or more")
        if query not in queries:
            raise wrong_line(file, number, f"there is no query {query!r} in queries.jsonl")
        if document not in documents:
            raise wrong_line(file, number, f"there is no document {document!r} in corpus.jsonl")
        judgements.setdefault(query, {})[document] = int(grade)
    if not judgements:
        raise InvalidInput(f"{file} holds no judgements.", field="--data")
    return judgements


def _hash(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
