"""Make sure that the experiment exists, over MLflow's REST API: importing its client takes seconds."""

import httpx

from assistant.errors import Unavailable

TIMEOUT_S = 30.0


def ensure_experiment(tracking_uri: str, name: str) -> bool:
    """True when it was made now. Raises Unavailable naming the server when it refuses."""
    base = f"{tracking_uri.rstrip('/')}/api/2.0/mlflow/experiments"
    try:
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
            found = client.get(f"{base}/get-by-name", params={"experiment_name": name})
            if found.is_success:
                return False
            made = client.post(f"{base}/create", json={"name": name})
    except httpx.HTTPError as error:
        raise Unavailable(
            f"MLflow at {tracking_uri} does not answer: {error or type(error).__name__}."
        ) from None
    if made.is_success or "RESOURCE_ALREADY_EXISTS" in made.text:
        return made.is_success
    raise Unavailable(f"MLflow at {tracking_uri} did not make the experiment {name!r}: {made.text[:200]}")
