"""A graph of deployments as queues: replicas with cores, an autoscaler as Serve's, replicas that die.

Times are seconds. What is left out: the network, memory, garbage collection, batching, and that a busy node slows
all its replicas; so its answers are bounds from below for latency and hold only beneath saturation.
"""

import math
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

LOOK_S, INTERVAL_S = 30.0, 10.0
"""Serve's defaults: the window over which ongoing requests are averaged, and how often it decides."""
RETRIES = 1
"""Of a step whose replica died under it."""
Process = Generator[Any, Any, None]


@dataclass(frozen=True)
class PartPlan:
    """A deployment. `cores` is what one replica can use at once, `admitted` how many requests it takes in."""

    name: str
    cores: int = 1
    minimum: int = 1
    maximum: int = 1
    target_ongoing: float = 2.0
    admitted: int | None = None
    up_delay_s: float = 30.0
    down_delay_s: float = 600.0
    start_s: float = 60.0
    mtbf_s: float = math.inf
    """Mean time between deaths of one replica."""
    restart_s: float = 30.0


@dataclass(frozen=True)
class Step:
    """Work of one request at one part: mean seconds of a core, and their coefficient of variation."""

    part: str
    mean_s: float
    variation: float = 1.0


@dataclass(frozen=True)
class RoutePlan:
    """A kind of request: `rate` per second, the entrance that holds it to its end, and its steps in order."""

    name: str
    rate: float
    entrance: str
    steps: Sequence[Step]


@dataclass
class Outcome:
    """What became of the requests that began after the warm-up."""

    latencies_s: list[float] = field(default_factory=list)
    refused: int = 0
    lost: int = 0

    @property
    def offered(self) -> int:
        return len(self.latencies_s) + self.refused + self.lost


class LostError(Exception):
    """The replica died."""


class Replica:
    def __init__(self, env: simpy.Environment, cores: int) -> None:
        self.cores = simpy.Resource(env, cores)
        self.dead = env.event()
        self.ongoing = 0
        self.leaving = False


class Part:
    """The replicas of a deployment, and whoever adds, removes and kills them."""

    def __init__(self, env: simpy.Environment, plan: PartPlan, rng: random.Random) -> None:
        self._env = env
        self.plan = plan
        self._rng = rng
        self.replicas: list[Replica] = []
        self._coming = 0
        self._samples: list[tuple[float, int]] = []
        self.most = 0
        self.busy_s = 0.0
        for _ in range(plan.minimum):
            self._join()
        env.process(self._autoscale())

    def pick(self) -> Replica | None:
        """The less busy of two at random, as Serve does; None while nobody is there."""
        if not self.replicas:
            return None
        some = self._rng.sample(self.replicas, min(2, len(self.replicas)))
        return min(some, key=lambda replica: replica.ongoing)

    def work(self, replica: Replica, step: Step) -> Process:
        """Raises LostError when the replica dies before the end."""
        with replica.cores.request() as core:
            yield core | replica.dead
            if replica.dead.triggered:
                raise LostError
            seconds = drawn(self._rng, step)
            self.busy_s += seconds
            yield self._env.timeout(seconds) | replica.dead
            if replica.dead.triggered:
                raise LostError

    def _join(self) -> None:
        replica = Replica(self._env, self.plan.cores)
        self.replicas.append(replica)
        self.most = max(self.most, len(self.replicas))
        if math.isfinite(self.plan.mtbf_s):
            self._env.process(self._die(replica))

    def _die(self, replica: Replica) -> Process:
        yield self._env.timeout(self._rng.expovariate(1 / self.plan.mtbf_s))
        if replica not in self.replicas:
            return
        self.replicas.remove(replica)
        replica.dead.succeed()
        self._env.process(self._arrive(self.plan.restart_s))

    def _arrive(self, after_s: float) -> Process:
        self._coming += 1
        yield self._env.timeout(after_s)
        self._coming -= 1
        self._join()

    def _autoscale(self) -> Process:
        above_since = below_since = None
        while self.plan.maximum > self.plan.minimum:
            yield self._env.timeout(INTERVAL_S)
            now, have = self._env.now, len(self.replicas) + self._coming
            self._samples.append((now, sum(r.ongoing for r in self.replicas)))
            self._samples = [one for one in self._samples if one[0] > now - LOOK_S]
            mean = sum(count for _, count in self._samples) / len(self._samples)
            wanted = math.ceil(mean / self.plan.target_ongoing)
            wanted = min(max(wanted, self.plan.minimum), self.plan.maximum)
            above_since = (above_since or now) if wanted > have else None
            below_since = (below_since or now) if wanted < have else None
            if above_since is not None and now - above_since >= self.plan.up_delay_s:
                for _ in range(wanted - have):
                    self._env.process(self._arrive(self.plan.start_s))
                above_since = None
            if below_since is not None and now - below_since >= self.plan.down_delay_s:
                for replica in sorted(self.replicas, key=lambda r: r.ongoing)[: have - wanted]:
                    # It finishes what it has.
                    self.replicas.remove(replica)
                below_since = None


def drawn(rng: random.Random, step: Step) -> float:
    """Gamma-distributed: mean and variation are those of the step, and never below nothing."""
    if step.variation <= 0:
        return step.mean_s
    shape = 1 / step.variation**2
    return rng.gammavariate(shape, step.mean_s / shape)


def simulate(
    parts: Sequence[PartPlan],
    routes: Sequence[RoutePlan],
    seconds: float,
    warm_up_s: float = 0.0,
    seed: int = 0,
) -> tuple[dict[str, Outcome], dict[str, Part]]:
    """Outcomes by route and the parts at the end. Requests still inside at the end are followed to theirs."""
    env, rng = simpy.Environment(), random.Random(seed)
    graph = {plan.name: Part(env, plan, rng) for plan in parts}
    outcomes = {route.name: Outcome() for route in routes}
    for route in routes:
        env.process(_arrivals(env, rng, graph, route, outcomes[route.name], seconds, warm_up_s))
    env.run(until=seconds + 120.0)
    return outcomes, graph


def _arrivals(
    env: simpy.Environment,
    rng: random.Random,
    graph: dict[str, Part],
    route: RoutePlan,
    outcome: Outcome,
    seconds: float,
    warm_up_s: float,
) -> Process:
    while env.now < seconds:
        yield env.timeout(rng.expovariate(route.rate))
        env.process(_request(env, graph, route, outcome if env.now >= warm_up_s else Outcome()))


def _request(env: simpy.Environment, graph: dict[str, Part], route: RoutePlan, outcome: Outcome) -> Process:
    entrance, began = graph[route.entrance], env.now
    door = entrance.pick()
    if door is None:
        outcome.lost += 1
        return
    if entrance.plan.admitted is not None and door.ongoing >= entrance.plan.admitted:
        outcome.refused += 1
        return
    door.ongoing += 1
    try:
        for step in route.steps:
            yield from _step(env, graph, step, route.entrance, door)
    except LostError:
        outcome.lost += 1
    else:
        outcome.latencies_s.append(env.now - began)
    finally:
        door.ongoing -= 1


def _step(
    env: simpy.Environment, graph: dict[str, Part], step: Step, entrance: str, door: Replica
) -> Process:
    part = graph[step.part]
    if step.part == entrance:
        yield from part.work(door, step)
        return
    for attempt in range(RETRIES + 1):
        replica = part.pick()
        if replica is None:
            yield env.timeout(1.0)
            continue
        replica.ongoing += 1
        try:
            yield from part.work(replica, step)
        except LostError:
            if door.dead.triggered or attempt == RETRIES:
                raise
        else:
            if door.dead.triggered:
                raise LostError
            return
        finally:
            replica.ongoing -= 1
    raise LostError
