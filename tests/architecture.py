"""The rules of who may import whom, as tables, and the reader that finds breaches."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {
    "assistant": {"assistant"},
    "serve_app": {"assistant", "serve_app"},
    "data_jobs": {"assistant", "data_jobs"},
    "evals": {"assistant", "evals"},
    "training": {"assistant", "evals", "training"},
    "tuning": {"assistant", "evals", "training", "tuning"},
    "cluster": {"assistant", "serve_app", "data_jobs", "evals", "training", "tuning", "cluster"},
}
"""Which of our packages each of our packages may import."""

OUTSIDE = {
    "ray.serve": ("serve_app", "cluster/ray_node"),
    "fastapi": ("serve_app",),
    "starlette": ("serve_app", "cluster/qdrant_edge"),
    "ray.data": ("data_jobs",),
    "ray.train": ("training",),
    "ray.tune": ("tuning",),
    "ray": ("serve_app", "data_jobs", "training", "tuning", "evals", "cluster"),
    "mlflow": ("training", "evals", "cluster"),
    "psycopg": ("assistant/stores", "cluster/postgres"),
    "psycopg_pool": ("assistant/stores",),
    "qdrant_client": ("assistant/stores", "cluster/qdrant_edge", "cluster/qdrant"),
    "qdrant_edge": ("assistant/retrieval/sparse", "cluster/qdrant_edge", "cluster/qdrant"),
}
"""Which outside module may be imported only below which paths; the longest matching name counts."""

RANKS = (
    ("errors", "clock", "types", "settings", "telemetry", "tracing", "markup"),
    ("stores", "llm", "security"),
    ("retrieval",),
    ("rfc", "codedocs", "learning"),
)
"""Parts of `assistant`, lowest first: a part imports lower ranks and itself, never a sibling above rank 0."""

LAZY = {"cluster": {"serve_app", "data_jobs", "evals", "training", "tuning"}}
"""Packages that may be reached only inside functions, so that a command line starts fast."""

NO_PYTHON = ("mlflow", "kuberay")


@dataclass(frozen=True)
class Import:
    file: str
    line: int
    module: str
    relative: bool
    top_level: bool


def imports_of(source: str, file: str) -> Iterator[Import]:
    tree = ast.parse(source, file)
    inside = {id(n) for block in ast.walk(tree) if _runs_later(block) for n in ast.walk(block)}
    for node in ast.walk(tree):
        top = id(node) not in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, False, top)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield Import(file, node.lineno, base, node.level > 0, top)
            for alias in node.names:
                yield Import(file, node.lineno, f"{base}.{alias.name}", node.level > 0, top)


def _runs_later(node: ast.AST) -> bool:
    """Whether imports below this node cost nothing when the module is imported."""
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def breach(found: Import) -> str | None:
    """Why this import is not allowed, or None."""
    where = f"{found.file}:{found.line}"
    if found.relative:
        return f"{where}: relative import; write the whole name"
    package = found.file.split("/")[0]
    target = found.module.split(".")[0]
    if target in PACKAGES and package in PACKAGES:
        if target not in PACKAGES[package]:
            return f"{where}: {package} may not import {target}"
        if found.top_level and target in LAZY.get(package, set()):
            return f"{where}: {package} may import {target} only inside a function"
        if package == target == "assistant":
            return _rank_breach(found, where)
        return None
    return _outside_breach(found, where)


def _outside_breach(found: Import, where: str) -> str | None:
    names = [n for n in OUTSIDE if found.module == n or found.module.startswith(f"{n}.")]
    if not names or found.file.split("/")[0] not in PACKAGES:
        return None
    allowed = OUTSIDE[max(names, key=len)]
    if any(found.file == f"{p}.py" or found.file.startswith(f"{p}/") for p in allowed):
        return None
    return f"{where}: {max(names, key=len)} may be imported only in {', '.join(allowed)}"


def _rank_breach(found: Import, where: str) -> str | None:
    parts = found.module.split(".")
    if len(parts) < 2:
        return None
    own, other = found.file.split("/")[1].removesuffix(".py"), parts[1]
    own_rank, other_rank = _rank(own), _rank(other)
    if own_rank is None:
        return f"{where}: {own} has no rank in tests/architecture.py"
    if own == other or other_rank is None or other_rank < own_rank or own_rank == other_rank == 0:
        return None
    return f"{where}: assistant.{own} may not import assistant.{other}"


def _rank(part: str) -> int | None:
    return next((i for i, rank in enumerate(RANKS) if part in rank or part == "__init__"), None)


def breaches(root: Path) -> list[str]:
    found = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            file = path.relative_to(root).as_posix()
            found += [b for i in imports_of(path.read_text(encoding="utf-8"), file) if (b := breach(i))]
    return list(dict.fromkeys(found))
