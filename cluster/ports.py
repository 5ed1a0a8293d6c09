"""Ports on loopback: free ones, remembered, so that addresses stay the same from start to start."""

import json
import socket
from collections.abc import Collection
from pathlib import Path

from cluster.files import write_private


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # macOS lets us bind one address of a port that another program holds on all addresses.
        probe.settimeout(1.0)
        if probe.connect_ex((host, port)) == 0:
            return False
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def pick(preferred: int = 0, taken: Collection[int] = ()) -> int:
    """`preferred` when it is free, else any free port outside `taken`."""
    if preferred and preferred not in taken and is_free(preferred):
        return preferred
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in taken:
            return port


class PortBook:
    """Remembers one port per name in a file of the state folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            loaded = json.loads(path.read_text())
            self._ports = {str(name): int(port) for name, port in loaded.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            self._ports = {}

    def known(self, name: str) -> int:
        """The remembered port, or 0."""
        return self._ports.get(name, 0)

    def port(self, name: str, preferred: int = 0, *, in_use_by_us: bool = False) -> int:
        """The port of `name`: the remembered one while it is free or ours, else a new one."""
        known = self._ports.get(name, 0)
        if known and (in_use_by_us or is_free(known)):
            return known
        others = {port for other, port in self._ports.items() if other != name}
        self._ports[name] = pick(preferred, others)
        write_private(self.path, json.dumps(self._ports, indent=1) + "\n")
        return self._ports[name]
