"""Ask a service whether it works. Each probe raises in one sentence when it does not."""

import http.client
import importlib
import socket
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from cluster.plan import Probe


class ProbeFailed(Exception):
    """The service did not answer, or not well."""


def check(probe: Probe) -> None:
    """Raises ProbeFailed, or whatever a `call` probe's function raises."""
    if probe.kind == "http":
        _http(probe)
    elif probe.kind == "tcp":
        _tcp(probe)
    else:
        resolve(probe.target)(**probe.arguments)


def resolve(target: str) -> Callable[..., Any]:
    """The function behind `module:function`."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def http_get(url: str, headers: Mapping[str, str], timeout_s: float) -> tuple[int, bytes]:
    """Status and the first 64 KiB of the body. Raises OSError or HTTPException."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.request(
            "GET", f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}", headers=dict(headers)
        )
        response = connection.getresponse()
        return response.status, response.read(65536)
    finally:
        connection.close()


def _http(probe: Probe) -> None:
    try:
        status, _ = http_get(probe.target, probe.headers, probe.timeout_s)
    except (OSError, http.client.HTTPException) as error:
        raise ProbeFailed(f"no answer from {probe.target} ({error or type(error).__name__})") from None
    if status >= 400:
        raise ProbeFailed(f"{probe.target} answered {status}")


def _tcp(probe: Probe) -> None:
    host, _, port = probe.target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=probe.timeout_s).close()
    except OSError as error:
        raise ProbeFailed(f"nothing listens on {probe.target} ({error})") from None
