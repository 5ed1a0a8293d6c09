"""What KubeRay 1.7 refuses although its CRDs allow it, as its validation says (ray-operator, `validation.go`).

`refusals` returns sentences, so that a test can plant a mistake and see it named.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Spec = Mapping[str, Any]

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
NAME_LIMITS = {"RayService": 47, "RayJob": 47, "RayCronJob": 36}
"""KubeRay adds 6 characters to the name of a service or a job, and 11 more to that of a scheduled one."""
DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h))+")
RESOURCE_PARAMS = ("num-cpus", "num-gpus", "memory", "resources")
TOKEN_AUTH_SINCE = (2, 52, 0)
PRIORITY_SINCE = (2, 56, 0)
CRON_FIELDS = 5
INCREMENTAL = "NewClusterWithIncrementalUpgrade"
UPGRADES = ("NewCluster", INCREMENTAL, "None")


def refusals(item: Mapping[str, Any]) -> list[str]:
    """Why the operator would refuse this RayService, RayJob or RayCronJob; empty when it would not."""
    kind, metadata, spec = item["kind"], item["metadata"], item["spec"]
    annotations = metadata.get("annotations", {})
    found = list(_name(kind, metadata["name"]))
    match kind:
        case "RayService":
            found += _service(spec, annotations)
        case "RayJob":
            found += _job(spec, annotations)
        case _:
            found += _cron_job(spec)
    return found


def _name(kind: str, name: str) -> Iterator[str]:
    if len(name) > NAME_LIMITS[kind]:
        yield f"name has {len(name)} characters, {kind} takes {NAME_LIMITS[kind]}"
    if not DNS_1035.fullmatch(name):
        yield f"name {name!r} is no DNS-1035 label"


def _service(spec: Spec, annotations: Mapping[str, str]) -> Iterator[str]:
    timeout = annotations.get("ray.io/initializing-timeout")
    if timeout and not _positive_time(timeout):
        yield f"ray.io/initializing-timeout {timeout!r} is no positive duration"
    cluster = spec["rayClusterConfig"]
    yield from _cluster(cluster, annotations)
    if "upgradeStrategy" in cluster:
        yield "rayClusterConfig.upgradeStrategy belongs to a RayCluster of its own"
    if cluster["headGroupSpec"].get("headService", {}).get("metadata", {}).get("name"):
        yield "headGroupSpec.headService.metadata.name must not be set"
    if int(spec.get("rayClusterDeletionDelaySeconds", 0)) < 0:
        yield "rayClusterDeletionDelaySeconds is negative"
    yield from _upgrade(spec.get("upgradeStrategy", {}), bool(cluster.get("enableInTreeAutoscaling")))


def _upgrade(strategy: Spec, autoscaling: bool) -> Iterator[str]:
    chosen = strategy.get("type", "NewCluster")
    if chosen not in UPGRADES:
        yield f"upgradeStrategy.type {chosen!r} is none of {', '.join(UPGRADES)}"
    if chosen != INCREMENTAL:
        return
    options = strategy.get("clusterUpgradeOptions")
    if not autoscaling:
        yield "an incremental upgrade needs the autoscaler"
    if options is None:
        yield "an incremental upgrade needs clusterUpgradeOptions"
        return
    step, surge = options.get("stepSizePercent", -1), options.get("maxSurgePercent", 100)
    if not 0 <= step <= surge <= 100:
        yield f"0 <= stepSizePercent ({step}) <= maxSurgePercent ({surge}) <= 100 does not hold"
    if options.get("intervalSeconds", 0) <= 0:
        yield "intervalSeconds must be more than 0"
    if not options.get("gatewayClassName"):
        yield "gatewayClassName is required"


def _job(spec: Spec, annotations: Mapping[str, str]) -> Iterator[str]:
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "a RayJob without shutdownAfterJobFinishes cannot be suspended"
    if spec.get("ttlSecondsAfterFinished", 0) > 0 and not spec.get("shutdownAfterJobFinishes"):
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if spec.get(field, 1) <= 0:
            yield f"{field} must be more than 0"
    if spec.get("backoffLimit", 0) < 0:
        yield "backoffLimit is negative"
    if spec.get("submissionMode") == "SidecarMode" and {"submitterPodTemplate", "submitterConfig"} & set(
        spec
    ):
        yield "SidecarMode takes neither submitterPodTemplate nor submitterConfig"
    if "rayClusterSpec" not in spec:
        yield "a RayJob of ours brings its cluster (rayClusterSpec)"
        return
    if "upgradeStrategy" in spec["rayClusterSpec"]:
        yield "rayClusterSpec.upgradeStrategy belongs to a RayCluster of its own"
    yield from _cluster(spec["rayClusterSpec"], annotations)


def _cron_job(spec: Spec) -> Iterator[str]:
    schedule = spec["schedule"]
    if "TZ" in schedule:
        yield "the time zone belongs into timeZone, not into the schedule"
    elif not schedule.startswith("@") and len(schedule.split()) != CRON_FIELDS:
        yield f"the schedule {schedule!r} has not {CRON_FIELDS} fields"
    if spec.get("timeZone") == "":
        yield "timeZone is empty"
    yield from _job(spec["jobTemplate"], {})


def _cluster(spec: Spec, annotations: Mapping[str, str]) -> Iterator[str]:
    head, groups = spec["headGroupSpec"], spec.get("workerGroupSpecs", [])
    autoscaling = bool(spec.get("enableInTreeAutoscaling"))
    options = spec.get("autoscalerOptions", {})
    second = autoscaling and options.get("version") == "v2"
    if not _containers(head):
        yield "headGroupSpec has no container"
        return
    yield from _resources("head", head)
    for group in groups:
        yield from _group(group, spec, autoscaling, second)
    env = _env(head)
    yield from _fault_tolerance(spec, annotations, head, env)
    yield from _authentication(spec)
    if autoscaling and "version" in options and "RAY_enable_autoscaler_v2" in env:
        yield "autoscalerOptions.version and the variable RAY_enable_autoscaler_v2 are both set"
    if second:
        for name, part in [("head", head), *((g["groupName"], g) for g in groups)]:
            if part["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield f"{name}: the autoscaler v2 needs restartPolicy Never"
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds is negative"
    for gated in ("networkPolicy", "tlsOptions", "historyServerOptions"):
        if gated in spec:
            yield f"{gated} is behind an alpha feature gate"


def _group(group: Spec, spec: Spec, autoscaling: bool, second: bool) -> Iterator[str]:
    name = group["groupName"]
    if not _containers(group):
        yield f"group {name} has no container"
    low, high = group.get("minReplicas"), group.get("maxReplicas")
    if not autoscaling and (low is None or high is None):
        yield f"group {name} needs minReplicas and maxReplicas when the autoscaler is off"
    if not 0 <= (low or 0) <= (high if high is not None else low or 0):
        yield f"group {name}: 0 <= minReplicas ({low}) <= maxReplicas ({high}) does not hold"
    yield from _resources(f"group {name}", group)
    if autoscaling and group.get("suspend"):
        yield f"group {name} cannot be suspended with the autoscaler on"
    if "idleTimeoutSeconds" in group and (not second or group["idleTimeoutSeconds"] < 0):
        yield f"group {name}: idleTimeoutSeconds needs the autoscaler v2 and must not be negative"
    if "priority" in group and (not second or _version(spec) < PRIORITY_SINCE):
        yield f"group {name}: priority needs the autoscaler v2 and Ray 2.56"


def _resources(name: str, group: Spec) -> Iterator[str]:
    params = group.get("rayStartParams", {})
    if group.get("resources") and any(params.get(param) for param in RESOURCE_PARAMS):
        yield f"{name}: resources are set both in rayStartParams and in resources"
    if "labels" in params:
        yield f"{name}: labels must not be set in rayStartParams"


def _fault_tolerance(
    spec: Spec, annotations: Mapping[str, str], head: Spec, env: Sequence[str]
) -> Iterator[str]:
    options = spec.get("gcsFaultToleranceOptions")
    params = head.get("rayStartParams", {})
    if "RAY_REDIS_ADDRESS" in env:
        yield "the variable RAY_REDIS_ADDRESS must not be set, gcsFaultToleranceOptions does it"
    if "REDIS_USERNAME" in env or params.get("redis-username"):
        yield "the Redis user name belongs into gcsFaultToleranceOptions.redisUsername"
    if options is None:
        return
    if "REDIS_PASSWORD" in env or params.get("redis-password"):
        yield "the Redis password belongs into gcsFaultToleranceOptions.redisPassword"
    for annotation in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
        if annotations.get(annotation):
            yield f"the annotation {annotation} and gcsFaultToleranceOptions exclude each other"
    if options.get("backend", "redis") != "redis":
        yield "the embedded storage is behind an alpha feature gate"
    elif "storage" in options:
        yield "gcsFaultToleranceOptions.storage is not for Redis"


def _authentication(spec: Spec) -> Iterator[str]:
    options = spec.get("authOptions", {})
    if options.get("enableK8sTokenAuth"):
        yield "enableK8sTokenAuth is not for RayService and RayJob"
    if options.get("mode") == "token" and _version(spec) < TOKEN_AUTH_SINCE:
        yield "authOptions.mode token needs rayVersion 2.52.0 or later"


def _version(spec: Spec) -> tuple[int, ...]:
    return tuple(int(part) for part in str(spec.get("rayVersion") or "0").split("."))


def _containers(group: Spec) -> Sequence[Spec]:
    found: Sequence[Spec] = group["template"]["spec"].get("containers", [])
    return found


def _env(group: Spec) -> list[str]:
    return [str(variable["name"]) for variable in _containers(group)[0].get("env", [])]


def _positive_time(text: str) -> bool:
    if text.isdigit():
        return int(text) > 0
    return bool(DURATION.fullmatch(text)) and any(digit in "123456789" for digit in text)
