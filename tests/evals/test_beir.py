"""Judged collections in BEIR's form, whole and broken."""

from pathlib import Path

import pytest

from assistant.errors import InvalidInput
from evals.beir import load_beir

CORPUS = '{"_id": "d1", "title": "Disks", "text": "fill up"}\n{"_id": "d2", "title": "", "text": "Nodes"}\n'
QUERIES = '{"_id": "q1", "text": "full disk"}\n{"_id": "q2", "text": "not judged"}\n'
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n"


def folder(at: Path, corpus: str = CORPUS, queries: str = QUERIES, qrels: str = QRELS) -> Path:
    (at / "qrels").mkdir()
    (at / "corpus.jsonl").write_text(corpus)
    (at / "queries.jsonl").write_text(queries)
    (at / "qrels" / "test.tsv").write_text(qrels)
    return at


def test_a_collection_is_read(tmp_path: Path) -> None:
    found = load_beir(folder(tmp_path))
    assert found.documents == {"d1": "Disks fill up", "d2": "Nodes"}
    assert found.queries == {"q1": "full disk"}
    assert found.judgements == {"q1": {"d1": 1, "d2": 0}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"corpus": CORPUS + "{}"}, r"corpus.jsonl, line 3: field '_id'"),
        ({"corpus": CORPUS + CORPUS}, r"corpus.jsonl, line 3: the _id 'd1' is used twice"),
        ({"corpus": '{"_id": "d1", "text": " "}'}, r"corpus.jsonl, line 1: field 'text' is empty"),
        ({"queries": "not json"}, r"queries.jsonl, line 1: is no JSON"),
        ({"qrels": "q1\td1\t1\n"}, r"test.tsv, line 1: must be the headings"),
        ({"qrels": QRELS + "q1 d1 1\n"}, r"test.tsv, line 4: has 1 fields"),
        ({"qrels": QRELS + "q1\td1\tyes\n"}, r"test.tsv, line 4: the score 'yes'"),
        ({"qrels": QRELS + "q9\td1\t1\n"}, r"test.tsv, line 4: there is no query 'q9'"),
        ({"qrels": QRELS + "q1\td9\t1\n"}, r"test.tsv, line 4: there is no document 'd9'"),
        ({"qrels": QRELS.partition("\n")[0]}, r"test.tsv holds no judgements"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_beir(folder(tmp_path, **files))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"dev\.tsv does not exist"):
        load_beir(folder(tmp_path), split="dev")
    with pytest.raises(InvalidInput, match=r"corpus\.jsonl does not exist"):
        load_beir(tmp_path / "nowhere")


def test_scifact_is_what_was_published(real_data: Path) -> None:
    test, train = load_beir(real_data / "scifact"), load_beir(real_data / "scifact", "train")
    assert len(test.documents) == 5183
    assert (len(test.queries), sum(map(len, test.judgements.values()))) == (300, 339)
    assert (len(train.queries), sum(map(len, train.judgements.values()))) == (809, 919)
    assert not test.queries.keys() & train.queries.keys()
