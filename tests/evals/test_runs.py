"""Stored runs: whole or not at all, found by the beginning of their id, equal after reading."""

import json
import os
import re
from pathlib import Path

import pytest

from assistant.errors import ConfigurationError, InvalidInput, NotFound
from evals.report import render, worst
from evals.results import compare
from evals.runs import RunStore
from tests.evals.results import result


def test_a_run_is_read_as_it_was_stored(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    made = result()
    stored = store.save(made, "<html>")
    assert stored.result == made
    assert stored.report.read_text() == "<html>"
    assert stored.code_version != ""
    assert store.load(stored.id).created_at == stored.created_at


def test_runs_are_listed_newest_first_whatever_their_suite(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    assert store.list() == []
    for id_ in ("b-suite-20260101-000000-aaaa", "a-20260103-000000-aaaa", "c-20260102-000000-aaaa"):
        saved = store.save(result(), "")
        saved.folder.rename(store.folder / id_)
    assert [r.folder.name for r in store.list()] == [
        "a-20260103-000000-aaaa",
        "c-20260102-000000-aaaa",
        "b-suite-20260101-000000-aaaa",
    ]
    assert store.load("b-").folder.name == "b-suite-20260101-000000-aaaa"


def test_a_wrong_name_is_told(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for _ in range(2):
        store.save(result(), "")
    with pytest.raises(NotFound, match="no stored run 'x'"):
        store.load("x")
    with pytest.raises(NotFound):
        store.load("")
    with pytest.raises(InvalidInput, match="2 runs begin with 'small'"):
        store.load("small")


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    file = store.save(result(), "").folder / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))
    with pytest.raises(ConfigurationError, match=r"run\.json is no stored run"):
        store.list()


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    store = RunStore(tmp_path)
    with pytest.raises(ConfigurationError, match="No space left on device"):
        store.save(result(), "")
    assert list(store.folder.iterdir()) == []


def test_two_runs_are_compared_on_the_cases_they_share() -> None:
    better, base = result(0.1), result(cases=20)
    found = compare(better.per_case, base.per_case, "model/rouge_l", draws=200)
    assert found is not None
    assert found.difference == pytest.approx(0.1)
    assert (found.verdict, found.n, found.groups) == ("better", 20, 10)
    assert compare(better.per_case, base.per_case, "nowhere/rouge_l") is None


def test_the_report_is_one_file_that_loads_nothing_and_trusts_nobody() -> None:
    page = render(result(hostile=True), "revision <b>")
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "revision &lt;b&gt;" in page
    for outside in ('src="', "@import", "<link"):
        assert outside not in page
    assert set(re.findall(r"url\(.", page)) == {"url(#"}
    assert set(re.findall(r'href="(.)', page)) <= {"#"}
    assert page.count("<svg ") >= 3
    assert "prefers-color-scheme: dark" in page
    assert "#010101" not in page
    assert "var(--accent)" in page


def test_the_report_shows_figures_verdicts_and_the_worst_cases() -> None:
    made = result()
    page = render(made)
    interval = made.metrics["model/rouge_l"]
    assert f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]" in page
    assert ">better<" in page
    assert page.count("<details>") == 12
    assert worst(made)[0].values["model/rouge_l"] == min(c.values["model/rouge_l"] for c in made.per_case)
    assert render(made) == page
