"""How near a text is to a reference: BLEU, ROUGE and METEOR, in any language that the metric allows.

Words are runs of letters and digits of any script. Stemming follows the script: Porter's for Latin letters,
Snowball's for Cyrillic. Scores of free drafts are low and depend on length: compare them with floors and with
each other, on the same sections, never with figures of another task.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from evals import wordnet

TEXT_METRICS = ("rouge_1", "rouge_2", "rouge_l", "bleu", "meteor")
"""All 0 to 1, but BLEU: 0 to 100, as sacrebleu prints it."""

_WORD = re.compile(r"[^\W_]+")
_STEMMED_FROM = 4
"""rouge-score leaves words of up to three letters alone."""
_MAX_METEOR_WORDS = 2_000
"""Its alignment costs the product of both lengths."""


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


def stems(text: str) -> list[str]:
    """The stems of a text's words. On English text the same as rouge-score's own tokens with its stemmer."""
    return [_stem(word) for word in words(text)]


def rouge(candidate: str, reference: str) -> dict[str, float]:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004), 0 to 1, on stems."""
    found = _rouge_scorer().score(reference, candidate)
    return {
        "rouge_1": found["rouge1"].fmeasure,
        "rouge_2": found["rouge2"].fmeasure,
        "rouge_l": rouge_l(candidate, reference),
    }


def rouge_l(candidate: str, reference: str) -> float:
    """F1 of the longest common subsequence of stems, 0 to 1; 0 when a text has no words."""
    ours, theirs = stems(candidate), stems(reference)
    common = common_subsequence(ours, theirs)
    return 2 * common / (len(ours) + len(theirs)) if common else 0.0


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence, a whole row of the usual table at once in the bits of an
    integer (Hyyrö 2004): sections of a thousand words take milliseconds instead of a second.
    """
    positions: dict[str, int] = {}
    for index, token in enumerate(a):
        positions[token] = positions.get(token, 0) | 1 << index
    everywhere = (1 << len(a)) - 1
    row = everywhere
    for token in b:
        matches = row & positions.get(token, 0)
        row = ((row + matches) | (row - matches)) & everywhere
    return len(a) - row.bit_count()


def bleu(candidate: str, reference: str) -> float:
    """sacrebleu's sentence BLEU, 0 to 100, with effective order; its settings are `bleu_signature()`."""
    return float(_sentence_bleu().sentence_score(candidate, [reference]).score)


@cache
def bleu_signature() -> str:
    """What has to stand beside every BLEU: tokenizer, smoothing, version."""
    metric = _sentence_bleu()
    metric.sentence_score("a", ["a"])
    return str(metric.get_signature())


@dataclass(frozen=True, slots=True)
class CorpusBleu:
    """`text` is sacrebleu's line with precisions and brevity penalty."""

    score: float
    signature: str
    text: str


def corpus_bleu(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> CorpusBleu:
    """BLEU over a whole corpus; `references` holds one list per reference, each as long as `candidates`."""
    from sacrebleu.metrics.bleu import BLEU

    metric = BLEU()
    found = metric.corpus_score(candidates, references)
    return CorpusBleu(float(found.score), str(metric.get_signature()), str(found))


class Meteor:
    """METEOR (Banerjee, Lavie 2005) by NLTK, 0 to 1. English only, since its synonyms are WordNet's.

    NLTK looks synonyms up by the stem that the stage before left, so it finds "auto" for "car" and not
    "automobile": its figures are comparable with its own only.
    """

    def __init__(self, folder: Path) -> None:
        self._wordnet = wordnet.load(folder)

    @classmethod
    def available(cls, home: Path) -> "Meteor | None":
        """None where no WordNet data are found: the metric is then left out, never reported as 0."""
        folder = wordnet.find(home)
        return None if folder is None else cls(folder)

    def score(self, candidate: str, reference: str) -> float | None:
        """None for a reference that is not English, by its letters."""
        from nltk.translate.meteor_score import single_meteor_score  # type: ignore[import-untyped]

        theirs = words(reference)[:_MAX_METEOR_WORDS]
        if sum(word.isascii() for word in theirs) * 2 < len(theirs):
            return None
        ours = words(candidate)[:_MAX_METEOR_WORDS]
        if not ours or not theirs:
            return 0.0
        return float(single_meteor_score(theirs, ours, wordnet=self._wordnet))


def text_scores(candidate: str, reference: str, meteor: Meteor | None = None) -> Mapping[str, float]:
    """Every metric that is available, by its name in `TEXT_METRICS`."""
    scores = rouge(candidate, reference) | {"bleu": bleu(candidate, reference)}
    found = meteor.score(candidate, reference) if meteor else None
    return scores if found is None else scores | {"meteor": found}


class _Stems:
    """`stems` as rouge-score wants its tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return stems(text)


@cache
def _rouge_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]

    return RougeScorer(["rouge1", "rouge2"], tokenizer=_Stems())


@cache
def _sentence_bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    if len(word) < _STEMMED_FROM:
        return word
    return str(_cyrillic()(word) if "\u0400" <= word[0] <= "\u04ff" else _porter()(word))


@cache
def _porter() -> Any:
    from nltk.stem.porter import PorterStemmer  # type: ignore[import-untyped]

    return PorterStemmer().stem


@cache
def _cyrillic() -> Any:
    import Stemmer  # type: ignore[import-not-found]

    return Stemmer.Stemmer("russian").stemWord
