"""The chart on a cluster: `python -m cluster.kubernetes deploy|upgrade|status|uninstall ENV`.

A thin order of `helm` and `kubectl` calls, each printed before it runs. The namespace is AI_ASSISTANT_NAMESPACE or
`ai-assistant`; the cluster is the one that `kubectl` talks to.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

import yaml

from assistant.errors import AssistantError, ConfigurationError, Unavailable
from cluster.chart import CHART, RELEASE, secret, secret_keys, values_of

Run = Callable[[Sequence[str], str | None], int]

NAMESPACE_VARIABLE = "AI_ASSISTANT_NAMESPACE"
HOOKS_TIMEOUT = "45m"
"""Migrations and weights together; Helm's own five minutes would end a first install."""
READY_TIMEOUT = "45m"
PROGRAMS = {
    "helm": "https://helm.sh/docs/intro/install (macOS: brew install helm)",
    "kubectl": "https://kubernetes.io/docs/tasks/tools (macOS: brew install kubectl)",
}


def call(command: Sequence[str], text: str | None) -> int:
    """Run a program with `text` on its standard input. The exit status."""
    sys.stderr.write(f"+ {shlex.join(command)}\n")
    return subprocess.run(command, input=text, text=True, check=False).returncode


def need_programs(which: Callable[[str], str | None] = shutil.which) -> None:
    """Raises ConfigurationError saying where to get what is missing."""
    missing = [name for name in PROGRAMS if which(name) is None]
    if missing:
        raise ConfigurationError(
            f"{' and '.join(missing)} not found on PATH.",
            hint="; ".join(f"{name}: {PROGRAMS[name]}" for name in missing)
            + ". Rendering works without them: make k8s-render",
        )


class Release:
    """One environment on one cluster."""

    def __init__(self, environment: str, namespace: str, run: Run = call) -> None:
        self.environment = environment
        self.namespace = namespace
        self._run = run
        self._values = values_of(environment)

    def deploy(self) -> None:
        """Install, or bring up to date, and wait until it serves. Raises Unavailable naming the failed command."""
        if self._try("kubectl", "get", "namespace", self.namespace) != 0:
            self._do("kubectl", "create", "namespace", self.namespace)
        self._ensure_secret()
        self._helm("upgrade", "--install")
        self._wait()

    def upgrade(self) -> None:
        """As `deploy`, for a release that must be there already."""
        if self._try("helm", "status", RELEASE, "--namespace", self.namespace) != 0:
            raise ConfigurationError(
                f"There is no release {RELEASE} in the namespace {self.namespace}.",
                hint=f"Install it first: make k8s-deploy ENV={self.environment}",
            )
        self._ensure_secret()
        self._helm("upgrade")
        self._kubectl(
            "wait", "--for=condition=UpgradeInProgress=false", f"rayservice/{RELEASE}", "--timeout=45m"
        )
        self._wait()

    def status(self) -> None:
        self._do("helm", "status", RELEASE, "--namespace", self.namespace)
        self._kubectl(
            "get",
            "rayservice,raycluster,rayjob,statefulset,deployment,cronjob,pod",
            "--selector",
            f"app.kubernetes.io/instance={RELEASE}",
        )
        self._kubectl("get", "raycluster,pod", "--selector", "ray.io/node-type")

    def uninstall(self) -> None:
        """Remove the release. Volumes stay: they hold documents, weights and backups."""
        self._do("helm", "uninstall", RELEASE, "--namespace", self.namespace, "--wait")
        self._kubectl("get", "persistentvolumeclaim")

    def _ensure_secret(self) -> None:
        name = self._values.get("secrets", {}).get("existingSecret")
        if not name or self._try("kubectl", "-n", self.namespace, "get", "secret", name) == 0:
            return
        try:
            made = secret(self.environment)
        except ConfigurationError as error:
            keys = ", ".join(secret_keys(self.environment))
            raise ConfigurationError(
                f"The Secret {name} is not in the namespace {self.namespace}. {error.detail}",
                hint=f"Create it with the keys: {keys}.",
            ) from None
        self._do("kubectl", "-n", self.namespace, "apply", "--filename", "-", text=yaml.safe_dump(made))

    def _helm(self, *verb: str) -> None:
        values = (
            []
            if self.environment == "default"
            else ["--values", str(CHART / f"values-{self.environment}.yaml")]
        )
        # Without --wait: hooks run after an install, and what they do is what the pods wait for.
        self._do(
            "helm",
            *verb,
            RELEASE,
            str(CHART),
            "--namespace",
            self.namespace,
            *values,
            "--timeout",
            HOOKS_TIMEOUT,
        )

    def _wait(self) -> None:
        self._kubectl("wait", "--for=condition=Ready", f"rayservice/{RELEASE}", f"--timeout={READY_TIMEOUT}")

    def _kubectl(self, *arguments: str) -> None:
        self._do("kubectl", "-n", self.namespace, *arguments)

    def _do(self, *command: str, text: str | None = None) -> None:
        status = self._run(command, text)
        if status != 0:
            raise Unavailable(
                f"`{shlex.join(command)}` ended with status {status}.", hint="Its own words stand above."
            )

    def _try(self, *command: str) -> int:
        return self._run(command, None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["deploy", "upgrade", "status", "uninstall"])
    parser.add_argument("environment", help="the values file: production, local")
    given = parser.parse_args()
    need_programs()
    release = Release(given.environment, os.environ.get(NAMESPACE_VARIABLE, RELEASE))
    {
        "deploy": release.deploy,
        "upgrade": release.upgrade,
        "status": release.status,
        "uninstall": release.uninstall,
    }[given.command]()


if __name__ == "__main__":
    try:
        main()
    except AssistantError as error:
        hint = f"\n{error.hint}" if error.hint else ""
        sys.exit(f"{error.detail}{hint}")
