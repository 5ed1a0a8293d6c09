"""The check for missing wheels: what it makes of uv's answers, and once a night the real indexes."""

import importlib.util
import subprocess
from collections.abc import Sequence

import pytest

from assistant.errors import Unavailable
from cluster import wheels
from cluster.wheels import MACHINES, VARIANTS, check, refusal

NO_USABLE = """error: No solution found when resolving dependencies
  cause: Because rouge-score==0.1.2 has no usable wheels and you require rouge-score==0.1.2, we can
         conclude that your requirements are unsatisfiable.
"""
WRONG_PLATFORM = """error: No solution found when resolving dependencies
  cause: Because llguidance{platform_machine == 'x86_64'}==1.7.6 has no wheels with a matching platform tag
         (e.g., `manylinux_2_36_aarch64`) and you require it, we can conclude that it is unsatisfiable.
"""
UNPUBLISHED = (
    "  cause: Because there is no version of numpy==9.9.9 and you require numpy==9.9.9, we can conclude"
)
UNREACHED = "error: Request failed after 3 retries in 9.8s\n  cause: dns error\n"


class Index:
    """Stands for uv: `sources` are packages without a wheel, which it names one by one, as uv does."""

    def __init__(self, *sources: str, torch: bool = True) -> None:
        self.sources = sources
        self.torch = torch

    def __call__(self, arguments: Sequence[str], text: str) -> "subprocess.CompletedProcess[str]":
        if text:
            return self.answer(0, text) if self.torch else self.answer(1, "", UNREACHED)
        for name in self.sources:
            if f"--no-binary={name}" not in arguments:
                return self.answer(1, "", NO_USABLE.replace("rouge-score", name))
        return self.answer(0, "ray==2.60.0\ntorch==2.13.0\nrouge-score==0.1.2\n")

    def answer(self, status: int, out: str, error: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess([], status, out, error)


def test_a_complete_index_lacks_nothing() -> None:
    answer = check(VARIANTS[0], "aarch64", Index("rouge-score"))
    assert (answer.lacking, answer.unasked, answer.found) == ({}, "", 2)


def test_every_missing_wheel_is_named_in_one_run() -> None:
    answer = check(VARIANTS[0], "aarch64", Index("rouge-score", "numba", "xllamacpp"))
    assert answer.lacking == {"numba==0.1.2": "no usable wheels", "xllamacpp==0.1.2": "no usable wheels"}


def test_an_index_that_is_away_is_no_proof() -> None:
    answer = check(VARIANTS[0], "x86_64", Index("rouge-score", torch=False))
    assert answer.lacking == {}
    assert answer.unasked.startswith("torch==")


@pytest.mark.parametrize(
    ("stderr", "requirement", "reason"),
    [
        (NO_USABLE, "rouge-score==0.1.2", "no usable wheels"),
        (WRONG_PLATFORM, "llguidance==1.7.6", "no wheels with a matching platform tag (e.g."),
        (UNPUBLISHED, "numpy==9.9.9", "not published"),
    ],
)
def test_refusals_of_uv_are_understood(stderr: str, requirement: str, reason: str) -> None:
    assert refusal(stderr)[1:] == (requirement, reason)


def test_another_failure_is_not_taken_for_a_missing_wheel() -> None:
    with pytest.raises(Unavailable, match="Request failed"):
        refusal(UNREACHED)


@pytest.mark.parametrize(
    ("index", "status"),
    [(Index("rouge-score"), 0), (Index("numba"), 1), (Index("rouge-score", torch=False), 2)],
)
def test_the_exit_status_tells_lacking_from_unasked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], index: Index, status: int
) -> None:
    monkeypatch.setattr(wheels, "uv", index)
    assert wheels.report() == status
    assert "aarch64" in capsys.readouterr().out


@pytest.mark.nightly
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_every_pinned_wheel_of_the_image_exists(variant: wheels.Variant, machine: str) -> None:
    if importlib.util.find_spec("uv") is None:
        pytest.skip("the package `uv` is not installed: pip install uv")
    answer = check(variant, machine)
    assert answer.lacking == {}
    if answer.unasked:
        pytest.skip(f"not asked: {answer.unasked}")
