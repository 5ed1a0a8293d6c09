"""The subset of Qdrant's REST API that this product uses, served over the embedded engine (Qdrant Edge).

    QDRANT_API_KEY=secret python -m cluster.qdrant_edge --folder FOLDER --port PORT

It exists for machines without a `qdrant` binary: the same client code talks to either. One process owns
the folder. The engine holds the interpreter lock during every call, so everything runs in one event loop
and a request is atomic between two awaits; that order replaces locks.
"""
