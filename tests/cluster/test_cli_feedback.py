"""`ai-assistant feedback`: what is sent, and what is refused before anything is."""

import io
import json
import sys
from pathlib import Path

import pytest

from cluster.cli import exits
from cluster.layout import Layout
from tests.cluster.test_cli import CITATION, HIT, FakeApi, Run, api, chunk, home, run

__all__ = ["api", "home", "run"]
ID = "0190f5a0-0000-7000-8000-000000000001"
CHUNK = "0190f5a0-0000-7000-8000-000000000002"
GIVEN = (200, {"id": ID, "verified": True})


def sent(api: FakeApi) -> object:
    return api.asked[-1][2]


def test_an_answer_is_rated_and_corrected(run: Run, api: FakeApi, home: Layout, tmp_path: Path) -> None:
    api.routes[f"POST /api/v1/answers/{ID}/feedback"] = GIVEN
    better = tmp_path / "better.md"
    better.write_text("Grow the volume first.\n")
    code, _, err = run(
        *("feedback", "answer", ID.upper(), "--thumb", "down", "--stars", "2"),
        *("--comment", "outdated", "--edit", str(better)),
    )
    assert code == exits.OK
    assert "It counts at once." in err
    assert sent(api) == {
        "thumb": -1,
        "stars": 2,
        "comment": "outdated",
        "edited_text": "Grow the volume first.\n",
    }


def test_a_passage_and_a_section_are_named(run: Run, api: FakeApi, home: Layout) -> None:
    api.routes[f"POST /api/v1/search/{ID}/feedback"] = (200, {"id": ID, "verified": False})
    api.routes[f"POST /api/v1/rfc/{ID}/feedback"] = GIVEN
    code, _, err = run("feedback", "search", ID, "--chunk", CHUNK, "--thumb", "up")
    assert (code, sent(api)) == (exits.OK, {"thumb": 1, "chunk_id": CHUNK})
    assert "in a moment" in err
    code, out, _ = run("feedback", "rfc", ID, "--section", "Goals", "--stars", "5", "--json")
    assert (code, sent(api)) == (exits.OK, {"stars": 5, "section": "Goals"})
    assert json.loads(out) == GIVEN[1]


def test_the_correction_may_come_from_standard_input(
    run: Run, api: FakeApi, home: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.routes[f"POST /api/v1/rfc/{ID}/feedback"] = GIVEN
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"As it should be."), "utf-8"))
    assert run("feedback", "rfc", ID, "--section", "Goals", "--edit", "-")[0] == exits.OK
    assert sent(api) == {"edited_text": "As it should be.", "section": "Goals"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("answer", ID), "Nothing to say."),
        (("answer", "x", "--thumb", "up"), "is no id"),
        (("answer", ID, "--edit", "nowhere.md"), "nowhere.md cannot be read"),
        (("search", ID, "--chunk", "x", "--thumb", "up"), "is no id"),
        (("rfc", ID, "--edit", "x.md"), "--edit needs --section"),
        (("answer", ID, "--stars", "6"), "less than or equal to 5"),
        (("answer", ID, "--thumb", "sideways"), "up"),
    ],
)
def test_what_cannot_be_sent_is_told(
    run: Run, api: FakeApi, home: Layout, arguments: tuple[str, ...], said: str
) -> None:
    code, _, err = run("feedback", *arguments)
    assert code != exits.OK
    assert said in err
    assert api.asked == []


def test_search_and_ask_print_what_to_rate(run: Run, api: FakeApi, home: Layout) -> None:
    api.routes["POST /api/v1/search"] = (200, {"query_id": ID, "hits": [HIT], "took_ms": 3.0})
    _, out, err = run("search", "disk")
    assert f"passage {HIT['chunk_id']}" in out
    assert f"ai-assistant feedback search {ID}" in err
    extra = {"id": ID, "citations": [CITATION], "grounded": True}
    api.routes["POST /v1/chat/completions"] = (200, chunk("Hm.", assistant=extra) + "data: [DONE]\n\n")
    _, _, err = run("ask", "what?")
    assert f"ai-assistant feedback answer {ID}" in err
