"""Text metrics against the figures that their libraries publish."""

import random
from pathlib import Path

import pytest

from assistant.errors import ConfigurationError
from evals import wordnet
from evals.text_metrics import (
    Meteor,
    bleu,
    bleu_signature,
    common_subsequence,
    corpus_bleu,
    rouge,
    rouge_l,
    stems,
    text_scores,
)

SYSTEM = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
REFERENCES = [
    ["The dog bit the man.", "It was not unexpected.", "The man bit him first."],
    ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."],
]
FOX, LOG = "The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."
GUIDE = "It is a guide to action which ensures that the military always obeys the commands of the party"
GUIDE_REFERENCE = "It is a guide to action that ensures that the military will forever heed Party commands"
RUSSIAN = "Сервис перезапускает упавшие процессы и сообщает об этом дежурному инженеру."


def test_corpus_bleu_is_the_readmes() -> None:
    found = corpus_bleu(SYSTEM, REFERENCES)
    assert found.score == pytest.approx(48.530827009929865)
    assert found.signature == "nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"
    assert found.text == (
        "BLEU = 48.53 82.4/50.0/45.5/37.5 (BP = 0.943 ratio = 0.944 hyp_len = 17 ref_len = 18)"
    )


def test_sentence_bleu_is_the_readmes_and_tells_its_settings() -> None:
    assert bleu("The dog bit the man.", "The dog had bit the man.") == pytest.approx(51.15078115793242)
    assert bleu("nothing shared", "whatever else stands there") == 0.0
    assert bleu_signature() == "nrefs:1|case:mixed|eff:yes|tok:13a|smooth:exp|version:2.6.0"


def test_rouge_gold() -> None:
    found = rouge(LOG, FOX)
    assert found["rouge_1"] == pytest.approx(0.705882, abs=1e-6)
    assert found["rouge_2"] == pytest.approx(0.266667, abs=1e-6)
    assert found["rouge_l"] == pytest.approx(0.588235, abs=1e-6)


def test_rouge_l_and_its_stems_are_the_librarys_on_english_text() -> None:
    from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
    from rouge_score.tokenizers import DefaultTokenizer  # type: ignore[import-untyped]

    library = RougeScorer(["rougeL"], use_stemmer=True)
    assert stems(f"{FOX} relational_systems v1.2") == DefaultTokenizer(use_stemmer=True).tokenize(
        f"{FOX} relational_systems v1.2"
    )
    chance = random.Random(4)
    vocabulary = ["service", "services", "fails", "failing", "node", "a", "of", "retry", "quickly", "x2"]
    for _ in range(200):
        one, other = (" ".join(chance.choices(vocabulary, k=chance.randint(1, 70))) for _ in range(2))
        assert rouge_l(one, other) == pytest.approx(library.score(other, one)["rougeL"].fmeasure), (
            one,
            other,
        )


def test_the_longest_common_subsequence_at_the_edges() -> None:
    assert common_subsequence([], ["a"]) == common_subsequence(["a"], []) == 0
    assert common_subsequence(list("abcbdab"), list("bdcaba")) == 4
    assert rouge_l("", "words") == 0.0


def test_russian_text_is_scored_on_its_stems() -> None:
    scores = rouge(RUSSIAN, RUSSIAN)
    assert (scores["rouge_1"], scores["rouge_l"]) == (1.0, 1.0)
    assert rouge_l("упавший процесс сервиса", RUSSIAN) > 0.3
    assert rouge_l("совсем другой текст", RUSSIAN) == 0.0


def test_lexnames_are_those_of_the_manual_page() -> None:
    lines = wordnet.lexnames().splitlines()
    assert len(lines) == 45
    assert (lines[0], lines[3], lines[29], lines[44]) == (
        "00\tadj.all\t3",
        "03\tnoun.Tops\t1",
        "29\tverb.body\t2",
        "44\tadj.ppl\t3",
    )


def test_the_corpus_folder_is_built_whole_from_the_systems_files(tmp_path: Path) -> None:
    system, home = tmp_path / "system", tmp_path / "home"
    system.mkdir()
    for name in wordnet.FILES[:-1]:
        (system / name).write_text(name)
    target = home / "corpora" / "wordnet"
    with pytest.raises(ConfigurationError, match=f"lacks {wordnet.FILES[-1]} of WordNet"):
        wordnet.build(system, target)
    assert not target.exists()
    (system / wordnet.FILES[-1]).write_text("x")
    for _ in range(2):
        wordnet.build(system, target)
        assert {p.name for p in target.iterdir()} == {*wordnet.FILES, "lexnames"}
        assert [p.name for p in target.parent.iterdir()] == ["wordnet"]
    with pytest.raises(ConfigurationError, match="cannot be read"):
        wordnet.load(target)


def test_without_wordnet_meteor_is_left_out_not_nought() -> None:
    assert set(text_scores(LOG, FOX, None)) == {"rouge_1", "rouge_2", "rouge_l", "bleu"}


@pytest.fixture(scope="module")
def meteor(repo_root: Path) -> Meteor:
    found = Meteor.available(repo_root / ".local")
    if found is None:
        pytest.skip(f"WordNet is not on this machine. {wordnet.HOW}")
    return found


def test_meteor_gold(meteor: Meteor) -> None:
    assert meteor.score(GUIDE, GUIDE_REFERENCE) == pytest.approx(0.6944, abs=5e-5)
    assert meteor.score("entirely different", GUIDE_REFERENCE) == 0.0
    assert meteor.score("", GUIDE_REFERENCE) == 0.0
    assert text_scores(GUIDE, GUIDE_REFERENCE, meteor)["meteor"] == pytest.approx(0.6944, abs=5e-5)


def test_meteor_knows_synonyms_of_wordnet_3_0(meteor: Meteor, repo_root: Path) -> None:
    folder = wordnet.find(repo_root / ".local")
    assert folder is not None
    reader = wordnet.load(folder)
    assert (reader.get_version(), len(reader.synsets("dog"))) == ("3.0", 8)
    with_synonym = meteor.score("the auto stopped", "the car stopped")
    assert with_synonym is not None
    assert with_synonym > (meteor.score("the banana stopped", "the car stopped") or 0)


def test_meteor_is_not_asked_about_other_languages(meteor: Meteor) -> None:
    assert meteor.score(RUSSIAN, RUSSIAN) is None
