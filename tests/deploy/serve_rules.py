"""What Ray Serve would take from a `serveConfigV2` without a word: unknown keys, and limits the wrong way round."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    LoggingConfig,
    RayActorOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
)


def serve_problems(config: str) -> list[str]:
    """Everything that is wrong with a Serve config file, by Ray's own models read strictly."""
    loaded = yaml.safe_load(config)
    try:
        ServeDeploySchema.model_validate(loaded)
    except ValidationError as error:
        return [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
    return list(_config(loaded))


def _config(loaded: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown(loaded, ServeDeploySchema, "")
    yield from _unknown(loaded.get("http_options", {}), HTTPOptionsSchema, "http_options.")
    yield from _unknown(loaded.get("logging_config", {}), LoggingConfig, "logging_config.")
    for application in loaded["applications"]:
        where = f"{application['name']}."
        yield from _unknown(application, ServeApplicationSchema, where)
        for deployment in application.get("deployments", []):
            yield from _deployment(deployment, f"{where}{deployment['name']}.")


def _deployment(deployment: Mapping[str, Any], where: str) -> Iterator[str]:
    yield from _unknown(deployment, DeploymentSchema, where)
    yield from _unknown(
        deployment.get("ray_actor_options") or {}, RayActorOptionsSchema, f"{where}ray_actor_options."
    )
    autoscaling = deployment.get("autoscaling_config")
    if autoscaling:
        yield from _unknown(autoscaling, AutoscalingConfig, f"{where}autoscaling_config.")
        try:
            AutoscalingConfig(**autoscaling)
        except ValidationError as error:
            yield from (f"{where}autoscaling_config: {e['msg']}" for e in error.errors())


def _unknown(given: Mapping[str, Any], model: type[BaseModel], where: str) -> Iterator[str]:
    for key in given:
        if key not in model.model_fields:
            yield f"{where}{key}: Serve does not know this key"
