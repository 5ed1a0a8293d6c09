"""The simulated graph against what queueing theory says, and its autoscaler and deaths against their rules."""

import math
import statistics

import pytest

from benchmarks._queues import Outcome, Part, PartPlan, RoutePlan, Step, simulate


def erlang_c(servers: int, load: float) -> float:
    """Probability that a request has to wait in M/M/c; Erlang's second formula."""
    top = load**servers / math.factorial(servers) * servers / (servers - load)
    return top / (sum(load**k / math.factorial(k) for k in range(servers)) + top)


def one_part(plan: PartPlan, rate: float, step: Step, seconds: float) -> tuple[Outcome, Part]:
    route = RoutePlan("r", rate, plan.name, [step])
    outcomes, parts = simulate([plan], [route], seconds, warm_up_s=seconds / 20)
    return outcomes["r"], parts[plan.name]


@pytest.mark.parametrize(("servers", "rate"), [(1, 0.6), (4, 3.0)])
def test_waiting_is_erlangs(servers: int, rate: float) -> None:
    outcome, _ = one_part(PartPlan("p", cores=servers), rate, Step("p", 1.0), 15_000)
    expected = 1.0 + erlang_c(servers, rate) / (servers - rate)
    assert statistics.fmean(outcome.latencies_s) == pytest.approx(expected, rel=0.08)


def test_even_service_halves_the_waiting() -> None:
    outcome, _ = one_part(PartPlan("p"), 0.8, Step("p", 1.0, variation=0.0), 15_000)
    expected = 1.0 + 0.8 / (2 * (1 - 0.8))
    assert statistics.fmean(outcome.latencies_s) == pytest.approx(expected, rel=0.08)


def test_every_request_is_answered_refused_or_lost() -> None:
    narrow = PartPlan("p", admitted=2)
    outcome, _ = one_part(narrow, 3.0, Step("p", 1.0), 5_000)
    assert outcome.refused > 0 and outcome.lost == 0
    assert outcome.offered == pytest.approx(3.0 * 5_000 * 0.95, rel=0.05)
    assert max(outcome.latencies_s) < 60, "what is let in is at most second in the line"


def test_replicas_follow_the_load() -> None:
    grows = PartPlan("p", minimum=1, maximum=20, target_ongoing=2.0, start_s=20.0)
    _, part = one_part(grows, 8.0, Step("p", 1.0), 1_800)
    # Eight cores' worth of work, and two ongoing requests for each replica.
    assert 8 <= part.most <= 20
    _, narrow = one_part(PartPlan("p", maximum=3, target_ongoing=2.0), 2.0, Step("p", 1.0), 1_800)
    assert narrow.most <= 3


def test_a_death_behind_the_entrance_is_repaired_and_one_of_the_entrance_is_not() -> None:
    steps = [Step("door", 0.001), Step("back", 0.5)]
    route = RoutePlan("r", 2.0, "door", steps)
    dying = PartPlan("back", minimum=4, mtbf_s=200.0, restart_s=5.0)
    outcomes, _ = simulate([PartPlan("door", minimum=2), dying], [route], 3_600)
    assert outcomes["r"].lost <= 3, "only one that died twice in a row"
    outcomes, _ = simulate(
        [PartPlan("door", minimum=2, mtbf_s=200.0, restart_s=5.0), PartPlan("back", minimum=4)],
        [route],
        3_600,
    )
    assert outcomes["r"].lost > 10


def test_the_same_seed_gives_the_same() -> None:
    plan, step = PartPlan("p", mtbf_s=100.0, restart_s=1.0), Step("p", 0.1)
    first, _ = one_part(plan, 3.0, step, 500)
    again, _ = one_part(plan, 3.0, step, 500)
    assert first == again
