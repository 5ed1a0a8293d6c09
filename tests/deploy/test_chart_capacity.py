"""The arithmetic of a deployment: what is promised at most fits into the pods, the memory and the connections."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from assistant.llm.catalog import read_catalog
from assistant.stores.postgres import RESERVED_CONNECTIONS
from cluster.chart import RELEASE
from serve_app.options import deployment_options
from tests.deploy.conftest import VARIANTS, Build, Objects
from tests.deploy.kinds import named, of_kind
from tests.deploy.quantities import limit, number, request
from tests.deploy.test_serve_config import PARTS, serve_config, settings_of

POOLS = ("Router", "Writer", "Scheduler", "LocalLLM")
"""Deployments whose replicas hold a pool of Postgres connections."""
JOBS = 3
"""Migrations, an ingestion and a learning run may work at once, each with a pool."""
RAY_ITSELF = 2**30
"""The raylet, the agents and the proxy of a pod."""


@dataclass(frozen=True)
class Part:
    """One deployment at its largest."""

    name: str
    replicas: int
    per_node: int | None
    demand: Mapping[str, float]


def parts(objects: Objects, bound: str = "max_replicas") -> list[Part]:
    """Every deployment of the graph with its options as Serve merges them: the file beats the code."""
    application = serve_config(objects)["applications"][0]
    settings = settings_of(objects)
    local = read_catalog(application["args"]["models"], settings.home, "the values").local()
    given = {d["name"]: d for d in application["deployments"]}
    made = []
    for part in (*PARTS, *local):
        options: dict[str, Any] = deployment_options(settings, part)
        options |= given.get(options["name"], {})
        scaling = options.get("autoscaling_config")
        replicas = scaling[bound] if scaling else options.get("num_replicas", 1)
        actor = options["ray_actor_options"]
        demand = {
            "CPU": actor["num_cpus"],
            "GPU": actor.get("num_gpus", 0.0),
            "memory": actor.get("memory", 0),
        }
        demand |= actor.get("resources", {})
        made.append(
            Part(
                options["name"],
                replicas,
                options.get("max_replicas_per_node"),
                {k: v for k, v in demand.items() if v},
            )
        )
    return made


def node_types(objects: Objects) -> dict[str, dict[str, Any]]:
    """What Ray's own autoscaler reads out of the RayCluster that the operator would make."""
    (service,) = of_kind(objects, "RayService")
    cluster = {"metadata": {"name": "c", "namespace": "n"}, "spec": service["spec"]["rayClusterConfig"]}
    found: dict[str, dict[str, Any]] = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    return found


def unplaced(objects: Objects, bound: str = "max_replicas", workers: str = "max_workers") -> list[str]:
    """Replicas that find no pod when all groups are at their bound: first fit, the largest first."""
    nodes = [
        {"free": dict(type_["resources"]), "holds": list[str]()}
        for type_ in node_types(objects).values()
        for _ in range(type_[workers])
    ]
    wanted = [part for part in parts(objects, bound) for _ in range(part.replicas)]
    wanted.sort(key=lambda part: (-len(part.demand), -part.demand.get("CPU", 0)))
    left = []
    for part in wanted:
        for node in nodes:
            free, holds = node["free"], node["holds"]
            if part.per_node is not None and holds.count(part.name) >= part.per_node:
                continue
            if all(free.get(name, 0) >= amount for name, amount in part.demand.items()):
                for name, amount in part.demand.items():
                    free[name] -= amount
                holds.append(part.name)
                break
        else:
            left.append(part.name)
    return left


@pytest.mark.parametrize("name", [*VARIANTS])
def test_all_replicas_fit_at_most(renders: dict[str, Objects], name: str) -> None:
    assert unplaced(renders[name]) == []


@pytest.mark.parametrize("name", [*VARIANTS])
def test_the_least_replicas_fit_into_the_least_pods(renders: dict[str, Objects], name: str) -> None:
    """Or the application would wait for the autoscaler at every start. A GPU pod is started when it is needed."""
    left = unplaced(renders[name], "min_replicas", "min_workers")
    assert [part for part in left if part != "LocalLLM-llama"] == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ray": {"groups": {"router": {"maxReplicas": 19}}}}, ["Router"]),
        ({"ray": {"groups": {"router": {"rayResources": {"router": "0"}}}}}, ["Router"] * 20),
        ({"ray": {"groups": {"router": {"rayResources": {"memory": "1Gi"}}}}}, ["Router"] * 20),
        ({"ray": {"groups": {"worker": {"maxReplicas": 5}}}}, None),
    ],
)
def test_too_few_or_too_small_pods_are_noticed(
    build: Build, change: dict[str, Any], reason: list[str] | None
) -> None:
    left = unplaced(build("production", change))
    assert left == reason if reason is not None else left


def test_production_scales_from_two_to_twenty(production: Objects) -> None:
    scaling = {
        d["name"]: d.get("autoscaling_config")
        for d in serve_config(production)["applications"][0]["deployments"]
    }
    for name in ("Router", "Retriever"):
        assert (scaling[name]["min_replicas"], scaling[name]["max_replicas"]) == (2, 20)
    assert node_types(production)["router"]["max_workers"] == 20


def test_nothing_of_the_application_lands_on_the_head(rendered: Objects) -> None:
    assert node_types(rendered)["headgroup"]["resources"]["CPU"] == 0
    for part in parts(rendered):
        assert part.demand.keys() - {"memory"}, f"{part.name} asks for nothing that the head lacks"


def test_memory_of_a_ray_pod_adds_up(rendered: Objects) -> None:
    """What replicas may take, the object store and Ray itself stay below the limit of the container."""
    types = node_types(rendered)
    for group in of_kind(rendered, "RayService")[0]["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        container = group["template"]["spec"]["containers"][0]
        store = number(group["rayStartParams"]["object-store-memory"])
        total = types[group["groupName"]]["resources"]["memory"] + store
        spare = 256 * 2**20 if limit(container, "memory") < 4 * 2**30 else RAY_ITSELF
        assert total + spare <= limit(container, "memory"), (
            f"{group['groupName']}: {total / 2**30:.1f} GiB promised"
        )
        assert number(group["resources"]["CPU"]) <= limit(container, "cpu")


def test_requests_are_no_more_than_limits_and_production_memory_is_guaranteed(
    rendered: Objects, production: Objects
) -> None:
    from tests.deploy.kinds import containers

    for item in rendered:
        for path, container in containers(item):
            for resource in ("cpu", "memory"):
                assert request(container, resource) <= limit(container, resource), (
                    f"{item['metadata']['name']} {path}"
                )
    for group in of_kind(production, "RayService")[0]["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        container = group["template"]["spec"]["containers"][0]
        assert request(container, "memory") == limit(container, "memory")


def connections(objects: Objects) -> int:
    """Postgres connections at most: every pool full, two clusters at once in an upgrade, jobs, the tracking server."""
    settings = settings_of(objects)
    pool = settings.postgres.pool_max_size
    serving = sum(part.replicas for part in parts(objects) if part.name.startswith(POOLS)) * pool
    (service,) = of_kind(objects, "RayService")
    clusters = 1 if service["spec"]["upgradeStrategy"]["type"] == "None" else 2
    return clusters * serving + JOBS * pool + tracking(objects) + RESERVED_CONNECTIONS


def tracking(objects: Objects) -> int:
    for deployment in of_kind(objects, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        workers = next(int(a.split("=")[1]) for a in container["command"] if a.startswith("--workers="))
        env = {e["name"]: e.get("value") for e in container["env"]}
        pool = int(env["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"]) + int(env["MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"])
        scalers = of_kind(objects, "HorizontalPodAutoscaler")
        replicas = scalers[0]["spec"]["maxReplicas"] if scalers else deployment["spec"]["replicas"]
        # One more pod while a rollout surges.
        return (int(replicas) + 1) * workers * pool
    return 0


def max_connections(objects: Objects) -> int | None:
    """What our Postgres takes; None for somebody else's."""
    for cluster in of_kind(objects, "Cluster"):
        return int(cluster["spec"]["postgresql"]["parameters"]["max_connections"])
    for server in of_kind(objects, "StatefulSet"):
        if server["metadata"]["name"] == f"{RELEASE}-postgres":
            (container,) = server["spec"]["template"]["spec"]["containers"]
            return next(int(a.split("=")[1]) for a in container["args"] if a.startswith("max_connections="))
    return None


def test_connections_stay_below_what_postgres_takes(rendered: Objects) -> None:
    limit_ = max_connections(rendered)
    assert limit_ is None or connections(rendered) <= limit_


@pytest.mark.parametrize(
    "change", [{"settings": {"postgres": {"pool_max_size": 12}}}, {"postgres": {"maxConnections": 200}}]
)
def test_too_many_connections_are_noticed(build: Build, change: dict[str, Any]) -> None:
    objects = build("production", change)
    assert connections(objects) > (max_connections(objects) or 0)


def test_a_drain_is_longer_than_what_it_waits_for(rendered: Objects) -> None:
    settings = settings_of(rendered)
    (service,) = of_kind(rendered, "RayService")
    cluster = service["spec"]["rayClusterConfig"]
    for part in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        spec = part["template"]["spec"]
        env = {e["name"]: e.get("value") for e in spec["containers"][0]["env"]}
        drain = int(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert (
            settings.llm.request_timeout_s
            < settings.serve.drain_s
            < drain
            < spec["terminationGracePeriodSeconds"]
        )
        assert spec["terminationGracePeriodSeconds"] < service["spec"]["rayClusterDeletionDelaySeconds"]


def test_backups_are_closer_together_than_the_hour_that_may_be_lost(production: Objects) -> None:
    schedule = named(production, "CronJob", f"{RELEASE}-backup-postgres")["spec"]["schedule"]
    minutes, hour, *rest = schedule.split()
    assert (hour, rest) == ("*", ["*", "*", "*"])
    at = sorted(int(m) for m in minutes.split(","))
    gaps = [b - a for a, b in zip(at, [*at[1:], at[0] + 60], strict=True)]
    # The backup that runs when the disaster comes is lost too.
    assert max(gaps) <= 30


def test_the_settings_file_of_jobs_says_what_the_application_is_told(rendered: Objects) -> None:
    data = named(rendered, "ConfigMap", f"{RELEASE}-config")["data"]
    args = serve_config(rendered)["applications"][0]["args"]
    assert yaml.safe_load(data["config.yaml"]) == args["settings"]
    assert yaml.safe_load(data["models.yaml"]) == {"models": args["models"]}
