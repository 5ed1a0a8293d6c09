"""The HTTP API as a plain FastAPI application: it knows services, not Ray."""
