"""What `status` tells: the state file, the processes behind it, and the API's own health."""

import os
import time
from typing import Any

import psutil

from assistant.errors import AssistantError, ConfigurationError
from cluster.cli.exits import NotRunning
from cluster.cli.installation import Installation
from cluster.memory import Memory, stack_memory, total_pss
from cluster.plan import Plan
from cluster.processes import Identity, is_alive
from cluster.services import component_versions, version
from cluster.state import ServiceRecord, State


def inspect(installation: Installation) -> dict[str, Any]:
    """Everything known, as JSON values. Never raises for something that merely does not run."""
    try:
        state: State | None = installation.state()
    except (NotRunning, ConfigurationError):
        state = None
    found: dict[str, Any] = {
        "running": state is not None,
        "healthy": False,
        "health": None,
        "version": version(),
        "versions": component_versions(),
        "home": str(installation.layout.home),
        "urls": dict(state.urls) if state else {},
        "ray_token_file": str(installation.layout.ray_token),
        "supervisor": None,
        "services": [],
        "memory": None,
        "checks": None,
        "counts": None,
        "models": None,
    }
    if state is None:
        return found
    found["version"] = state.version or found["version"]
    memory = stack_memory(state, _plan(installation), exact=True)
    found["supervisor"] = {
        "leader": _process(state.leader) if is_alive(state.leader) else None,
        "standby": _process(state.standby) if is_alive(state.standby) else None,
    }
    found["services"] = [_service(record, memory.get(name)) for name, record in state.services.items()]
    found["memory"] = {
        "rss_bytes": sum(m.rss for m in memory.values()),
        "pss_bytes": total_pss(memory),
        "processes": sum(m.processes for m in memory.values()),
    }
    found |= _health(installation)
    ready = is_alive(state.leader) and all(r.phase == "ready" for r in state.services.values())
    found["healthy"] = ready and found["health"] in {"ok", "degraded"}
    return found


def _plan(installation: Installation) -> Plan | None:
    try:
        return installation.plan()
    except AssistantError:
        return None


def _health(installation: Installation) -> dict[str, Any]:
    try:
        answer = installation.api().get("/health")
    except AssistantError as error:
        return {"health": None, "checks": {"page": {"state": "down", "detail": error.detail}}}
    return {
        "health": answer.get("status"),
        "checks": answer.get("checks"),
        "counts": answer.get("counts"),
        "models": answer.get("models"),
    }


def _service(record: ServiceRecord, memory: Memory | None) -> dict[str, Any]:
    started = record.started_at if record.process else None
    return {
        "name": record.name,
        "phase": record.phase,
        "external": record.external,
        "pid": record.process.pid if record.process else None,
        "processes": memory.processes if memory else 0,
        "rss_bytes": memory.rss if memory else None,
        "pss_bytes": memory.pss if memory else None,
        "uptime_s": round(time.time() - started, 1) if started else None,
        "restarts": record.restarts,
        "url": record.url,
        "log": record.log,
        "detail": record.detail,
        "failure": record.failure,
    }


def _process(identity: Identity | None) -> dict[str, Any] | None:
    if identity is None:
        return None
    try:
        process = psutil.Process(identity.pid)
        return {
            "pid": identity.pid,
            "rss_bytes": process.memory_info().rss,
            "uptime_s": round(time.time() - process.create_time(), 1),
            "user": process.uids().real if os.name == "posix" else None,
        }
    except psutil.Error:
        return {"pid": identity.pid}
