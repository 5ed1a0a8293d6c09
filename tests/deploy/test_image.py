"""The promises of the Dockerfile, read from its text; the linter is the real one."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
SECRET = re.compile(r"PASSWORD|SECRET|CREDENTIAL|API_KEY|_TOKEN|TOKEN_|^TOKEN$")
TOOLS = ("bash", "wget", "grep", "ray")
"""What KubeRay runs in our image: probes and the init container."""


@dataclass
class Stage:
    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [body for name, body in self.steps if name == instruction]


def parse(text: str) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first stage, and the stages."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        instruction, _, body = line.strip().partition(" ")
        body = re.sub(r" +", " ", body).strip()
        if instruction == "FROM":
            base, _, name = body.partition(" AS ")
            stages.append(Stage(name, base))
        elif stages and instruction:
            stages[-1].steps.append((instruction, body))
        elif instruction == "ARG":
            name, _, value = body.partition("=")
            arguments[name] = value
    return arguments, stages


def problems(text: str) -> list[str]:
    """What the Dockerfile breaks of its promises, one sentence each."""
    arguments, stages = parse(text)
    return [*_bases(arguments, stages), *_installs(stages), *_secrets(arguments, stages), *_last(stages)]


def _bases(arguments: dict[str, str], stages: list[Stage]) -> list[str]:
    found = []
    if not DIGEST.search(arguments.get("BASE", "")):
        found.append("ARG BASE is not pinned by digest: end it with @sha256:…")
    names = {stage.name for stage in stages}
    variants = {"cpu", "cuda"}
    for stage in stages:
        known = {stage.base.replace("${VARIANT}", variant) for variant in variants} <= names
        if stage.base not in {"${BASE}", "scratch", *names} and not known:
            found.append(f"stage {stage.name} starts from {stage.base}: start from ${{BASE}} or a stage")
    if "sbom" not in names:
        found.append("there is no stage sbom")
    return found


def _installs(stages: list[Stage]) -> list[str]:
    found = []
    for stage in stages:
        for run in stage.all("RUN"):
            if " pip install" in run and "type=cache,target=/root/.cache/pip" not in run:
                found.append(f"stage {stage.name}: pip install without a cache mount")
            for command in re.findall(r"pip install ([^&]*)", run):
                if "-c " not in command and not re.search(r"-r requirements/\S+\.txt *$", command):
                    found.append(f"stage {stage.name}: `pip install {command.strip()}` has no exact versions")
            for packages in re.findall(r"apt-get install ([^&]*)", run):
                loose = [p for p in packages.split() if not p.startswith("-") and "=" not in p]
                if loose:
                    found.append(f"stage {stage.name}: {', '.join(loose)} without a version")
    return found


def _secrets(arguments: dict[str, str], stages: list[Stage]) -> list[str]:
    names = set(arguments)
    for stage in stages:
        for body in [*stage.all("ARG"), *stage.all("ENV")]:
            names |= set(re.findall(r"([A-Za-z_][A-Za-z0-9_]*)=", body)) | {body.partition("=")[0]}
    found = [f"{name} looks like a secret: give it when the container starts" for name in sorted(names)]
    return [line for line in found if SECRET.search(line.split()[0].upper())]


def _last(stages: list[Stage]) -> list[str]:
    last = stages[-1]
    found = []
    if last.all("USER")[-1:] != ["1000:1000"]:
        found.append("the last stage does not end as USER 1000:1000")
    checked = " ".join(run for run in last.all("RUN") if "command -v" in run)
    found += [f"the last stage does not check for {tool}" for tool in TOOLS if f" {tool}" not in checked]
    if not last.all("HEALTHCHECK"):
        found.append("the last stage has no HEALTHCHECK")
    if not any("PYTHONPATH=/app" in env for env in last.all("ENV")):
        found.append("PYTHONPATH does not name /app, where KubeRay finds the code")
    if any("pip install" in run or "apt-get" in run for run in last.all("RUN")):
        found.append("the last stage installs packages: do it in an earlier one")
    return found


@pytest.fixture(scope="module")
def text(repo_root: Path) -> str:
    return (repo_root / "cluster" / "Dockerfile").read_text()


def test_the_dockerfile_keeps_its_promises(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("@sha256:a36c24f9", ":a36c24f9", "ARG BASE is not pinned by digest"),
        ("FROM base AS build\n", "FROM python:3.11 AS build\n", "stage build starts from python:3.11"),
        ("USER 1000:1000", "USER root", "USER 1000:1000"),
        ("for tool in bash wget", "for tool in bash", "does not check for wget"),
        ("HEALTHCHECK --interval=10s", "LABEL a=b", "no HEALTHCHECK"),
        ("PYTHONPATH=/app", "PYTHONPATH=/srv", "PYTHONPATH does not name /app"),
        ("install -c constraints.txt pip", "install pip", "has no exact versions"),
        ("        wget=1.21.*", "        wget", "wget without a version"),
        (
            "ENV PATH=/opt/venv/bin:$PATH \\",
            "ENV HF_TOKEN=x PATH=/opt/venv/bin:$PATH \\",
            "HF_TOKEN looks like",
        ),
        ("FROM scratch AS sbom", "FROM scratch AS bill", "there is no stage sbom"),
        (
            "RUN python -m compileall -q /app",
            "RUN --mount=type=cache,target=/root/.cache/pip pip install -c constraints.txt ray",
            "the last stage installs packages",
        ),
    ],
)
def test_a_planted_mistake_is_named(text: str, old: str, new: str, problem: str) -> None:
    assert old in text
    assert any(problem in found for found in problems(text.replace(old, new))), problems(
        text.replace(old, new)
    )


def lint(path: Path, config: Path) -> list[str]:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert program, "hadolint is missing: install the dev extra"
    done = subprocess.run(
        [program, "--config", str(config), "-f", "json", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return [f"{item['line']} {item['code']} {item['message']}" for item in json.loads(done.stdout)]


def test_hadolint_finds_nothing(repo_root: Path) -> None:
    assert lint(repo_root / "cluster" / "Dockerfile", repo_root / "cluster" / "hadolint.yaml") == []


def test_hadolint_would_find_a_root_shell(text: str, repo_root: Path, tmp_path: Path) -> None:
    planted = tmp_path / "Dockerfile"
    planted.write_text(text.replace("apt-get install -y --no-install-recommends", "apt-get install", 1))
    assert any("DL3014" in line for line in lint(planted, repo_root / "cluster" / "hadolint.yaml"))


def test_the_image_holds_every_package_and_the_files_they_read(text: str, repo_root: Path) -> None:
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())
    packages = [name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    _, stages = parse(text)
    copied = {
        source.rstrip("/")
        for body in stages[-1].all("COPY")
        if "--from" not in body
        for source in body.split()[:-1]
    }
    assert set(packages) <= copied
    assert {"models.yaml", "dataset_config.yml", "docs", "README.md"} <= copied


def test_the_context_has_what_is_copied_and_nothing_private(text: str, repo_root: Path) -> None:
    _, stages = parse(text)
    sources = [
        source.rstrip("/")
        for stage in stages
        for body in stage.all("COPY")
        if "--from" not in body
        for source in body.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (repo_root / source).exists(), source
        assert in_context(source, repo_root), f".dockerignore leaves {source} out"
    for private in (
        ".env",
        ".local/run/plan.json",
        ".git/config",
        "cluster/compose.env",
        "docs/.env",
        "config.yaml",
    ):
        assert not in_context(private, repo_root), f".dockerignore lets {private} in"


def in_context(path: str, root: Path) -> bool:
    """Docker's rule: the last line that matches the path or a folder above it decides."""
    kept = True
    above = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
    for line in (root / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!").strip("/")
        names = {pattern, pattern.removeprefix("**/")}
        if any(fnmatch.fnmatch(part, name) for part in above for name in names):
            kept = line.startswith("!")
    return kept


def pins(path: Path) -> dict[str, str]:
    found = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", f"{path.name}: {line} is not exact"
            found[canonicalize_name(requirement.name)] = specifier.version
    return found


@pytest.mark.parametrize("name", ["cuda", "image", "sbom"])
def test_requirements_of_the_image_are_exact(repo_root: Path, name: str) -> None:
    assert pins(repo_root / "requirements" / f"{name}.txt")


def test_both_variants_run_the_same_versions(repo_root: Path) -> None:
    shared, cuda = (pins(repo_root / name) for name in ("constraints.txt", "requirements/cuda.txt"))
    image = pins(repo_root / "requirements" / "image.txt")
    assert {name for name in shared.keys() & cuda.keys() if shared[name] != cuda[name]} == {"apache-tvm-ffi"}
    for name in image.keys() & shared.keys():
        assert image[name] == shared[name], f"requirements/image.txt: {name}"
    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *extras["train"], *extras["evals"], *extras["vllm"]]:
        requirement = Requirement(line)
        version = cuda.get(canonicalize_name(requirement.name))
        assert version is not None, f"requirements/cuda.txt lacks {requirement.name}"
        assert version in requirement.specifier, (
            f"requirements/cuda.txt: {requirement.name}=={version}, {line}"
        )


def test_the_base_has_a_python_that_the_project_supports(text: str, repo_root: Path) -> None:
    from cluster.wheels import image_python

    project = tomllib.loads((repo_root / "pyproject.toml").read_text())["project"]
    assert image_python() in SpecifierSet(project["requires-python"])
    assert "bookworm" in parse(text)[0]["BASE"]


def test_the_cpu_build_of_torch_has_one_index(text: str) -> None:
    from cluster.bootstrap import TORCH_CPU_INDEX

    assert f"ARG TORCH_INDEX={TORCH_CPU_INDEX}" in text
