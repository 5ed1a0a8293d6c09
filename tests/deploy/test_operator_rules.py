"""The operator would take what the chart makes, and each of its refusals is known here."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.conftest import Objects
from tests.deploy.kinds import RAY_KINDS, of_kind
from tests.deploy.operator_rules import refusals

Item = dict[str, Any]


def test_the_operator_takes_every_object(rendered: Objects) -> None:
    checked = [item for item in rendered if item["kind"] in RAY_KINDS]
    assert checked
    assert [(item["metadata"]["name"], reason) for item in checked for reason in refusals(item)] == []


def cluster(item: Item) -> Item:
    found: Item = item["spec"]["rayClusterConfig"]
    return found


def head(item: Item) -> Item:
    found: Item = cluster(item)["headGroupSpec"]
    return found


def group(item: Item) -> Item:
    found: Item = cluster(item)["workerGroupSpecs"][0]
    return found


def add_env(item: Item, name: str) -> None:
    head(item)["template"]["spec"]["containers"][0]["env"].append({"name": name, "value": "1"})


def incremental(item: Item, **options: Any) -> None:
    given = {
        "gatewayClassName": "istio",
        "stepSizePercent": 10,
        "maxSurgePercent": 50,
        "intervalSeconds": 30,
        **options,
    }
    item["spec"]["upgradeStrategy"] = {
        "type": "NewClusterWithIncrementalUpgrade",
        "clusterUpgradeOptions": given,
    }


def without_autoscaler(item: Item) -> None:
    cluster(item)["enableInTreeAutoscaling"] = False
    group(item).pop("minReplicas")


SERVICE: dict[str, tuple[Callable[[Item], Any], str]] = {
    "long name": (lambda s: s["metadata"].update(name="a" * 48), "48 characters"),
    "name": (lambda s: s["metadata"].update(name="1st"), "DNS-1035"),
    "timeout": (
        lambda s: s["metadata"]["annotations"].update({"ray.io/initializing-timeout": "soon"}),
        "no positive duration",
    ),
    "zero timeout": (
        lambda s: s["metadata"]["annotations"].update({"ray.io/initializing-timeout": "0s"}),
        "no positive duration",
    ),
    "upgrade type": (lambda s: s["spec"].update(upgradeStrategy={"type": "Recreate"}), "none of NewCluster"),
    "upgrade inside": (
        lambda s: cluster(s).update(upgradeStrategy={"type": "Recreate"}),
        "RayCluster of its own",
    ),
    "head service": (lambda s: head(s).update(headService={"metadata": {"name": "x"}}), "headService"),
    "no head container": (
        lambda s: head(s)["template"]["spec"].update(containers=[]),
        "headGroupSpec has no container",
    ),
    "no worker container": (lambda s: group(s)["template"]["spec"].update(containers=[]), "has no container"),
    "min over max": (lambda s: group(s).update(minReplicas=21), "minReplicas (21) <= maxReplicas (20)"),
    "negative min": (lambda s: group(s).update(minReplicas=-1), "0 <= minReplicas (-1)"),
    "unset without autoscaler": (without_autoscaler, "needs minReplicas"),
    "old Ray": (lambda s: cluster(s).update(rayVersion="2.51.0"), "needs rayVersion 2.52.0"),
    "Kubernetes tokens": (
        lambda s: cluster(s)["authOptions"].update(enableK8sTokenAuth=True),
        "enableK8sTokenAuth",
    ),
    "Redis password": (lambda s: add_env(s, "REDIS_PASSWORD"), "redisPassword"),
    "Redis parameter": (lambda s: head(s)["rayStartParams"].update({"redis-password": "x"}), "redisPassword"),
    "Redis user": (lambda s: add_env(s, "REDIS_USERNAME"), "redisUsername"),
    "Redis address": (lambda s: add_env(s, "RAY_REDIS_ADDRESS"), "RAY_REDIS_ADDRESS"),
    "old annotation": (
        lambda s: s["metadata"]["annotations"].update({"ray.io/ft-enabled": "true"}),
        "ray.io/ft-enabled",
    ),
    "namespace": (
        lambda s: s["metadata"]["annotations"].update({"ray.io/external-storage-namespace": "x"}),
        "external-storage-namespace",
    ),
    "RocksDB": (
        lambda s: cluster(s)["gcsFaultToleranceOptions"].update(backend="rocksdb"),
        "alpha feature gate",
    ),
    "restart policy": (
        lambda s: head(s)["template"]["spec"].update(restartPolicy="Always"),
        "restartPolicy Never",
    ),
    "worker restart policy": (
        lambda s: group(s)["template"]["spec"].update(restartPolicy="OnFailure"),
        "restartPolicy Never",
    ),
    "autoscaler twice": (lambda s: add_env(s, "RAY_enable_autoscaler_v2"), "both set"),
    "idle": (lambda s: group(s).update(idleTimeoutSeconds=-1), "idleTimeoutSeconds"),
    "idle v1": (
        lambda s: (cluster(s)["autoscalerOptions"].pop("version"), group(s).update(idleTimeoutSeconds=9)),
        "needs the autoscaler v2",
    ),
    "idle of all": (lambda s: cluster(s)["autoscalerOptions"].update(idleTimeoutSeconds=-1), "is negative"),
    "priority": (
        lambda s: (cluster(s).update(rayVersion="2.55.0"), group(s).update(priority=1)),
        "priority needs",
    ),
    "suspended group": (lambda s: group(s).update(suspend=True), "cannot be suspended"),
    "resources twice": (lambda s: group(s)["rayStartParams"].update({"num-cpus": "1"}), "set both in"),
    "labels": (lambda s: head(s)["rayStartParams"].update(labels="a=b"), "labels must not"),
    "step over surge": (lambda s: incremental(s, stepSizePercent=60), "stepSizePercent (60)"),
    "no interval": (lambda s: incremental(s, intervalSeconds=0), "intervalSeconds"),
    "no gateway": (lambda s: incremental(s, gatewayClassName=""), "gatewayClassName"),
    "incremental alone": (
        lambda s: (incremental(s), cluster(s).update(enableInTreeAutoscaling=False)),
        "needs the autoscaler",
    ),
    "no options": (
        lambda s: s["spec"].update(upgradeStrategy={"type": "NewClusterWithIncrementalUpgrade"}),
        "needs clusterUpgradeOptions",
    ),
    "deletion": (
        lambda s: s["spec"].update(rayClusterDeletionDelaySeconds=-1),
        "rayClusterDeletionDelaySeconds",
    ),
    "network policy": (lambda s: cluster(s).update(networkPolicy={}), "networkPolicy is behind"),
    "TLS": (lambda s: cluster(s).update(tlsOptions={"enabled": True}), "tlsOptions is behind"),
}


@pytest.mark.parametrize("mistake", SERVICE)
def test_a_service_that_would_be_refused(production: Objects, mistake: str) -> None:
    (service,) = of_kind(production, "RayService")
    plant, reason = SERVICE[mistake]
    plant(service)
    found = refusals(service)
    assert any(reason in text for text in found), found


CRON: dict[str, tuple[Callable[[Item], Any], str]] = {
    "long name": (lambda j: j["metadata"].update(name="a" * 37), "RayCronJob takes 36"),
    "time zone": (lambda j: j["spec"].update(schedule="TZ=UTC 0 2 * * *"), "belongs into timeZone"),
    "fields": (lambda j: j["spec"].update(schedule="0 0 2 * * *"), "has not 5 fields"),
    "empty zone": (lambda j: j["spec"].update(timeZone=""), "timeZone is empty"),
    "deadline": (lambda j: j["spec"]["jobTemplate"].update(activeDeadlineSeconds=0), "activeDeadlineSeconds"),
    "retries": (lambda j: j["spec"]["jobTemplate"].update(backoffLimit=-1), "backoffLimit"),
    "ttl": (
        lambda j: j["spec"]["jobTemplate"].update(shutdownAfterJobFinishes=False),
        "ttlSecondsAfterFinished",
    ),
    "sidecar": (lambda j: j["spec"]["jobTemplate"].update(submissionMode="SidecarMode"), "SidecarMode"),
    "no cluster": (lambda j: j["spec"]["jobTemplate"].pop("rayClusterSpec"), "brings its cluster"),
    "suspended": (
        lambda j: j["spec"]["jobTemplate"].update(suspend=True, shutdownAfterJobFinishes=False),
        "cannot be suspended",
    ),
    "cluster": (
        lambda j: j["spec"]["jobTemplate"]["rayClusterSpec"].update(rayVersion="2.0.0"),
        "needs rayVersion",
    ),
}


@pytest.mark.parametrize("mistake", CRON)
def test_a_scheduled_job_that_would_be_refused(production: Objects, mistake: str) -> None:
    job = of_kind(production, "RayCronJob")[0]
    plant, reason = CRON[mistake]
    plant(job)
    found = refusals(job)
    assert any(reason in text for text in found), found
