"""Ranking metrics against figures worked out by hand and against trec_eval itself."""

import random

import pytest

from assistant.errors import InvalidInput
from evals.ranking import evaluate, mean, ranked, scores_of

JUDGED = {"q": {"d1": 3, "d2": 2, "d3": 0, "d4": 1, "d9": 2}}
RUN = {"q": {"d3": 5.0, "d1": 4.0, "d4": 3.0, "d2": 2.0, "d7": 1.0}}
GOLD = {
    "ndcg@3": 0.454742,
    "ndcg@5": 0.571651,
    "ndcg@10": 0.571651,
    "ap": 0.479167,
    "mrr": 0.5,
    "p@3": 0.666667,
    "p@5": 0.6,
    "p@10": 0.3,
    "recall@3": 0.5,
    "recall@5": 0.75,
}


@pytest.mark.parametrize(("metric", "value"), GOLD.items())
def test_gold_values(metric: str, value: float) -> None:
    assert evaluate(JUDGED, RUN, [metric])["q"][metric] == pytest.approx(value, abs=1e-6)


def test_equal_scores_are_ordered_by_id_descending_as_strings() -> None:
    assert ranked({"10": 1.0, "9": 1.0, "a": 1.0, "b": 2.0}) == ["b", "a", "9", "10"]
    tie = {"q": {"a": 0.5, "b": 0.5}}
    assert evaluate({"q": {"a": 1}}, tie, ["mrr"])["q"]["mrr"] == 0.5
    assert evaluate({"q": {"b": 1}}, tie, ["mrr"])["q"]["mrr"] == 1.0


def test_scores_are_single_precision() -> None:
    assert ranked({"a": 1.00000001, "b": 1.0}) == ["b", "a"]


def test_a_rankings_own_order_survives() -> None:
    order = ["b", "a", "9", "10", "c"]
    assert ranked(scores_of(order)) == order


def test_a_judged_query_without_results_counts_nothing_not_never() -> None:
    values = evaluate({"q1": {"a": 1}, "q2": {"b": 1}}, {"q1": {"a": 1.0}}, ["ndcg@10", "p@10"])
    assert values["q2"] == {"ndcg@10": 0.0, "p@10": 0.0}
    assert mean(values, "ndcg@10") == 0.5


@pytest.mark.parametrize("metric", ["ndcg@0", "dcg@10", "p", "recall@ten"])
def test_unknown_metrics_are_named(metric: str) -> None:
    with pytest.raises(InvalidInput, match=metric):
        evaluate(JUDGED, RUN, [metric])


def test_a_score_that_is_no_number_is_named() -> None:
    with pytest.raises(InvalidInput, match="'q': the score of document 'x'"):
        evaluate(JUDGED, {"q": {"x": float("nan")}})


def test_trec_eval_agrees_on_hundreds_of_runs_with_ties() -> None:
    oracle = pytest.importorskip("pytrec_eval", reason="pytrec_eval-terrier has no wheel for this machine")
    names = {
        "ndcg_cut_10": "ndcg@10",
        "ndcg": "ndcg",
        "recall_10": "recall@10",
        "recall_100": "recall@100",
        "map": "ap",
        "map_cut_10": "ap@10",
        "recip_rank": "mrr",
        "P_10": "p@10",
    }
    measures = {"ndcg_cut.10", "ndcg", "recall.10,100", "map", "map_cut.10", "recip_rank", "P.10"}
    chance = random.Random(7)
    for _ in range(300):
        documents = [str(n) for n in chance.sample(range(200), chance.randint(5, 150))]
        queries = [f"q{n}" for n in range(4)]
        judged = {
            q: {d: chance.choice([0, 0, 1, 1, 2, 3]) for d in chance.sample(documents, 5)} for q in queries
        }
        coarse = chance.choice([1, 3, 10, 1000])
        run = {
            q: {d: chance.randrange(coarse) / 7 for d in documents if chance.random() < 0.7} for q in queries
        }
        run = {q: found for q, found in run.items() if found}
        truth = oracle.RelevanceEvaluator(judged, measures).evaluate(run)
        ours = evaluate(judged, run, list(names.values()))
        for query, expected in truth.items():
            for theirs, name in names.items():
                assert ours[query][name] == pytest.approx(expected[theirs], abs=1e-6), (query, name)
