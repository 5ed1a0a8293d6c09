"""Serve a folder: `QDRANT_API_KEY=secret python -m cluster.qdrant_edge --folder FOLDER --port PORT`.

With the server stopped, `--optimize COLLECTION` instead of `--port` builds the HNSW index, which pays from
about 20,000 chunks on. It takes minutes, in which nothing could be answered; hence not in the server.
"""

import argparse
import os
import socket
import sys
from pathlib import Path

import uvicorn

from assistant.errors import ConfigurationError
from assistant.settings import TelemetrySettings
from assistant.telemetry import configure_logging, get_logger
from cluster.qdrant_edge.collections import Collections
from cluster.qdrant_edge.errors import ApiError
from cluster.qdrant_edge.server import create_app

KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that the server never closes one that is about to be used."""
DRAIN_S = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.qdrant_edge", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the collections live")
    parser.add_argument("--host", default="127.0.0.1")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--port", type=int, help="serve here until SIGTERM")
    task.add_argument("--optimize", metavar="COLLECTION", help="build the index of this collection or alias")
    arguments = parser.parse_args()
    configure_logging(TelemetrySettings(), "qdrant-edge")
    try:
        if arguments.optimize:
            optimize(arguments.folder, arguments.optimize)
        else:
            serve(arguments.folder, arguments.host, arguments.port, os.environ.get("QDRANT_API_KEY", ""))
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def serve(folder: Path, host: str, port: int, api_key: str) -> None:
    """Blocks until SIGTERM or SIGINT. ConfigurationError for a missing key, taken port or taken folder."""
    if not api_key:
        raise ConfigurationError(
            "The Qdrant Edge server needs an API key.", hint="Set QDRANT_API_KEY to a secret of your choice."
        )
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigurationError(
                f"Cannot listen on {host}:{port}: {error.strerror}.", hint="Choose another --port."
            ) from None
        # Opened here, not in the application's lifespan: a taken folder is one sentence, not a traceback.
        app = create_app(Collections(folder), api_key)
        config = uvicorn.Config(
            app,
            workers=1,
            access_log=False,
            log_level="warning",
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=DRAIN_S,
        )
        uvicorn.Server(config).run(sockets=[listener])


def optimize(folder: Path, name: str) -> None:
    """Index and vacuum one collection. ConfigurationError while a server runs on the folder."""
    store = Collections(folder)
    try:
        collection = store.get(name)
        changed = collection.shard.optimize()
        info = collection.info()
    except ApiError as error:
        raise ConfigurationError(
            error.message, hint=f"Known: {', '.join(store.names()) or 'none'}."
        ) from None
    finally:
        store.close()
    get_logger("qdrant_edge").info(
        "optimized" if changed else "nothing to optimize",
        collection=name,
        points=info["points_count"],
        indexed_vectors=info["indexed_vectors_count"],
    )


if __name__ == "__main__":
    sys.exit(main())
