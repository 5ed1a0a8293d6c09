"""Memory of the stack's processes, by service."""

from dataclasses import dataclass

import psutil

from cluster.plan import Plan
from cluster.processes import Identity, members
from cluster.state import State


@dataclass(frozen=True, slots=True)
class Memory:
    """`rss` counts shared pages in every process that has them; `pss` shares them out (Linux only)."""

    processes: int
    rss: int
    pss: int | None


def stack_memory(state: State, plan: Plan | None, *, exact: bool = False) -> dict[str, Memory]:
    """Service name → memory; supervisors too. `exact` reads PSS, which costs milliseconds per process."""
    return {name: _sum(processes, exact) for name, processes in stack_processes(state, plan).items()}


def stack_processes(state: State, plan: Plan | None) -> dict[str, list[psutil.Process]]:
    """Service name → its processes; supervisors too."""
    markers = {spec.name: spec.marker for spec in plan.services} if plan else {}
    groups: dict[str, list[psutil.Process]] = {}
    for name, record in state.services.items():
        if record.process is not None:
            groups[name] = _family(record.process, markers.get(name, ""))
    groups["supervisor"] = [p for leader in (state.leader, state.standby) if leader for p in members(leader)]
    return groups


def total_pss(memory: dict[str, Memory]) -> int | None:
    """None where the system does not tell."""
    known = [m.pss for m in memory.values() if m.pss is not None]
    return sum(known) if known and len(known) == len(memory) else None


def _family(identity: Identity, marker: str) -> list[psutil.Process]:
    """A service's session and its descendants: Postgres gives every backend a session of its own."""
    family = {process.pid: process for process in members(identity, marker)}
    try:
        leader = psutil.Process(identity.pid)
        family |= {process.pid: process for process in (leader, *leader.children(recursive=True))}
    except psutil.Error:
        pass
    return list(family.values())


def _sum(processes: list[psutil.Process], exact: bool) -> Memory:
    count, rss = 0, 0
    pss: int | None = 0 if exact else None
    for process in processes:
        try:
            info = process.memory_full_info() if exact else process.memory_info()
        except psutil.Error:
            continue
        count += 1
        rss += info.rss
        if pss is not None:
            own = getattr(info, "pss", None)
            pss = pss + own if own is not None else None
    return Memory(count, rss, pss)
