"""The production values under load, reckoned: `python -m benchmarks.simulation [--costs FILE] [--environment NAME]`.

Takes the processor time per request from `python -m benchmarks.capacity` and the deployments from the chart's
rendered `serveConfigV2`, and plays arrivals, service, Serve's autoscaler and deaths of replicas as a queueing
model (benchmarks/_queues.py says what it leaves out). Nothing here was measured on a cluster: the result says
what the values would carry if a core there is as fast as the one of the measurement, and what gives way first.
"""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from assistant.clock import now
from assistant.settings import ServeSettings
from benchmarks import RESULTS, save
from benchmarks._queues import Outcome, Part, PartPlan, RoutePlan, Step, simulate
from cluster.chart import objects, render, values_of

PROXY, ROUTER = "Proxy", "Router"
PARTS = {"ProxyActor": PROXY, ROUTER: ROUTER, "Retriever": "Retriever", "LocalLLM": "LocalLLM"}
"""Process of the measurement → part of the model; what other processes take is not on a request's way."""
ORDER = (PROXY, ROUTER, "Retriever", "LocalLLM")
WIDTH = 150
BUSY = 0.6
"""Share of a core that is planned for: beyond it waiting grows fast."""
USERS, THINK_S = 500, 30.0
MIX = {"search": 0.60, "ask": 0.33, "feedback": 0.07}
"""What a user does next. An assumption, to be replaced by the counts of `ai_assistant_requests_total`."""
REQUESTS, SHORTEST_S = 60_000, 240.0
"""Enough for a p95, and long enough for the autoscaler to act several times."""
MTBF_S = 24 * 3600.0
"""A death of each replica a day: an assumption, far worse than seen."""


def deployments(environment: str) -> dict[str, dict[str, Any]]:
    """Deployment → its block in the rendered Serve config; every LocalLLM-… as LocalLLM."""
    (service,) = [o for o in objects(render(values_of(environment))) if o["kind"] == "RayService"]
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    blocks = config["applications"][0]["deployments"]
    return {block["name"].split("-")[0]: block for block in blocks}


def plans(environment: str) -> dict[str, PartPlan]:
    found = {}
    for name, block in deployments(environment).items():
        scaling = block.get("autoscaling_config")
        fixed = block.get("num_replicas", 1)
        found[name] = PartPlan(
            name,
            minimum=scaling["min_replicas"] if scaling else fixed,
            maximum=scaling["max_replicas"] if scaling else fixed,
            target_ongoing=scaling["target_ongoing_requests"] if scaling else math.inf,
            up_delay_s=(scaling or {}).get("upscale_delay_s", 30.0),
            down_delay_s=(scaling or {}).get("downscale_delay_s", 600.0),
            mtbf_s=MTBF_S,
        )
    serve = ServeSettings()
    admitted = serve.max_ongoing_requests + serve.max_queued_requests
    found[ROUTER] = replace(found[ROUTER], admitted=admitted)
    # A proxy runs on every node that a Router runs on, and follows it.
    found[PROXY] = replace(found[ROUTER], name=PROXY, admitted=None)
    return {name: found[name] for name in ORDER}


def steps(route: Mapping[str, Any]) -> list[Step]:
    """Half of the Router's work before what is behind it, half after."""
    cpu_s = {PARTS[p]: ms / 1000 for p, ms in route["cpu_ms"].items() if p in PARTS and ms > 0}
    wall = route["wall_ms"]
    variation = wall["stdev"] / wall["mean"]
    found = []
    for part in ORDER:
        if part in cpu_s:
            share = 0.5 if part == ROUTER else 1.0
            found.append(Step(part, cpu_s[part] * share, variation))
    if ROUTER in cpu_s:
        found.append(Step(ROUTER, cpu_s[ROUTER] / 2, variation))
    return found


def scenarios(costs: Mapping[str, Any]) -> dict[str, list[RoutePlan]]:
    def plan(name: str, rate: float) -> RoutePlan:
        return RoutePlan(name, rate, ROUTER, steps(costs["routes"][name]))

    users = USERS / THINK_S
    return {
        f"{USERS} users, a request each {THINK_S:.0f} s": [
            plan(n, users * share) for n, share in MIX.items()
        ],
        "100 searches a second": [plan("search", 100.0)],
        "1000 searches a second": [plan("search", 1000.0)],
    }


def needed(costs: Mapping[str, Any], routes: Sequence[RoutePlan]) -> dict[str, int]:
    """Replicas of each part at which no core is busier than BUSY."""
    load: dict[str, float] = {}
    for route in routes:
        for step in route.steps:
            load[step.part] = load.get(step.part, 0.0) + route.rate * step.mean_s
    return {part: max(1, math.ceil(load.get(part, 0.0) / BUSY)) for part in ORDER}


def played(
    parts: Mapping[str, PartPlan], routes: Sequence[RoutePlan], seconds: float, warm_up_s: float
) -> dict[str, Any]:
    outcomes, graph = simulate(list(parts.values()), routes, seconds, warm_up_s)
    return {
        "routes": {name: _shown(outcome) for name, outcome in outcomes.items()},
        "most_replicas": {name: part.most for name, part in graph.items()},
        "busy_cores": {name: _busy(part, seconds) for name, part in graph.items()},
    }


def _shown(outcome: Outcome) -> dict[str, Any]:
    latencies = outcome.latencies_s
    return {
        "offered": outcome.offered,
        "p50_ms": round(statistics.median(latencies) * 1000, 1) if latencies else None,
        "p95_ms": round(statistics.quantiles(latencies, n=20)[-1] * 1000, 1) if len(latencies) > 1 else None,
        "refused": outcome.refused,
        "lost": outcome.lost,
    }


def _busy(part: Part, seconds: float) -> float:
    return round(part.busy_s / seconds, 2)


def enough(parts: Mapping[str, PartPlan], wanted: Mapping[str, int]) -> dict[str, PartPlan]:
    """The same deployments with as many replicas as `wanted` from the start."""
    return {n: replace(p, minimum=wanted[n], maximum=max(wanted[n], p.maximum)) for n, p in parts.items()}


def simulated_s(routes: Sequence[RoutePlan], longest: float) -> float:
    """Less at high rates, where a short time has enough requests; never less than the autoscaler's delays."""
    rate = sum(route.rate for route in routes)
    return min(longest, max(SHORTEST_S, REQUESTS / rate))


def measure(costs: Mapping[str, Any], environment: str, longest_s: float) -> dict[str, Any]:
    parts = plans(environment)
    found = {}
    for name, routes in scenarios(costs).items():
        wanted = needed(costs, routes)
        # The autoscaler needs minutes from its minimum; what counts is what comes after.
        seconds = simulated_s(routes, longest_s)
        found[name] = {
            "seconds": seconds,
            "needed_replicas": wanted,
            "as_configured": played(parts, routes, seconds, seconds / 2),
            "with_needed_replicas": played(enough(parts, wanted), routes, seconds / 4, seconds / 16),
        }
    return {"at": now().isoformat(), "environment": environment, "costs_of": costs["at"], "scenarios": found}


def table(result: dict[str, Any]) -> Table:
    shown = Table(title=f"Simulated, values of {result['environment']}")
    for column in ("load", "replicas", "route"):
        shown.add_column(column, no_wrap=True)
    for column in (*ORDER, "offered", "p50 ms", "p95 ms", "refused", "lost"):
        shown.add_column(column, justify="right", no_wrap=True)
    for name, scenario in result["scenarios"].items():
        for how, label in (("as_configured", "as configured"), ("with_needed_replicas", "as needed")):
            replicas = [str(scenario[how]["most_replicas"][part]) for part in ORDER]
            for route, row in scenario[how]["routes"].items():
                figures = [str(row[key]) for key in ("offered", "p50_ms", "p95_ms", "refused", "lost")]
                shown.add_row(name, label, route, *replicas, *figures)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--costs", type=Path, default=RESULTS / "capacity.json")
    parser.add_argument("--environment", default="production")
    parser.add_argument(
        "--seconds", type=float, default=1200.0, help="of simulated time at most, half of it warm-up"
    )
    given = parser.parse_args()
    if not given.costs.is_file():
        Console().print(f"SKIPPED: {given.costs} is not there; run `python -m benchmarks.capacity` first.")
        return
    costs = json.loads(given.costs.read_text(encoding="utf-8"))
    result = measure(costs, given.environment, given.seconds)
    save("simulation", result)
    Console(width=WIDTH).print(table(result))


if __name__ == "__main__":
    main()
