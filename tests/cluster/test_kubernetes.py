"""The order of the calls that bring the chart to a cluster, and what is said when one cannot go on."""

from collections.abc import Sequence

import pytest
import yaml

from assistant.errors import ConfigurationError, Unavailable
from cluster.kubernetes import Release, call, need_programs

pytest.importorskip("helm_python", reason="helm-python-sdk is not installed; it comes with the dev extra")


class Cluster:
    """Answers like a cluster that has what `there` says; keeps what was asked."""

    def __init__(self, *there: str, failing: str = "") -> None:
        self.there = there
        self.failing = failing
        self.calls: list[str] = []
        self.texts: list[str] = []

    def __call__(self, command: Sequence[str], text: str | None) -> int:
        line = " ".join(command)
        self.calls.append(line)
        if text is not None:
            self.texts.append(text)
        if self.failing and self.failing in line:
            return 1
        if " get namespace " in line or " get secret " in line or line.startswith("helm status"):
            return 0 if any(word in line for word in self.there) else 1
        return 0


def test_a_first_deploy_makes_namespace_and_secret_and_waits() -> None:
    cluster = Cluster()
    Release("local", "ns", cluster).deploy()
    kinds = [line.replace("-n ns ", "").split()[1] for line in cluster.calls]
    assert kinds == ["get", "create", "get", "apply", "upgrade", "wait"]
    made = yaml.safe_load(cluster.texts[0])
    assert made["metadata"]["name"] == "ai-assistant-secrets"
    assert {"auth_token", "postgres-password", "qdrant-api-key"} == set(made["stringData"])
    helm = next(line for line in cluster.calls if line.startswith("helm"))
    assert "upgrade --install ai-assistant" in helm
    assert "values-local.yaml" in helm
    assert "--wait" not in helm


def test_a_secret_that_is_there_stays() -> None:
    cluster = Cluster("namespace", "secret")
    Release("production", "ns", cluster).deploy()
    assert cluster.texts == []
    assert not any(" create " in line for line in cluster.calls)


def test_a_secret_of_others_is_asked_for_by_its_keys() -> None:
    cluster = Cluster("namespace")
    with pytest.raises(ConfigurationError, match="ai-assistant-secrets is not in the namespace ns") as caught:
        Release("production", "ns", cluster).deploy()
    assert "redis-password" in str(caught.value.hint)
    assert not any(line.startswith("helm") for line in cluster.calls)


def test_an_upgrade_needs_a_release() -> None:
    with pytest.raises(ConfigurationError, match="There is no release"):
        Release("local", "ns", Cluster("secret")).upgrade()
    cluster = Cluster("helm status", "secret")
    Release("local", "ns", cluster).upgrade()
    assert "--install" not in " ".join(cluster.calls)
    assert [line.split()[4] for line in cluster.calls if " wait " in line] == [
        "--for=condition=UpgradeInProgress=false",
        "--for=condition=Ready",
    ]


def test_a_command_that_fails_ends_it_and_is_named() -> None:
    cluster = Cluster("namespace", "secret", failing="helm upgrade")
    with pytest.raises(Unavailable, match="helm upgrade --install"):
        Release("local", "ns", cluster).deploy()
    assert not any(" wait " in line for line in cluster.calls)


def test_uninstalling_shows_what_stays() -> None:
    cluster = Cluster()
    Release("local", "ns", cluster).uninstall()
    assert [line.split()[0] for line in cluster.calls] == ["helm", "kubectl"]
    assert cluster.calls[-1].endswith("get persistentvolumeclaim")


def test_status_asks_helm_and_the_cluster() -> None:
    cluster = Cluster("helm status")
    Release("local", "ns", cluster).status()
    assert len(cluster.calls) == 3


def test_missing_programs_are_named_with_a_way_to_get_them() -> None:
    with pytest.raises(ConfigurationError, match="helm not found") as caught:
        need_programs(lambda name: None if name == "helm" else f"/bin/{name}")
    assert "helm.sh" in str(caught.value.hint)
    need_programs(lambda name: f"/bin/{name}")


def test_a_call_gets_its_input_and_tells_its_status(capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["cat"], "told") == 0
    assert capfd.readouterr().out == "told"
    assert call(["false"], None) == 1
    assert "+ false" in capfd.readouterr().err
