"""Real design documents, as few as a test needs: each takes some ten milliseconds to parse."""

from pathlib import Path

import pytest

from evals.documents import DesignDocument, parse

FAMILIES = {"rust-rfcs": "rust", "kubernetes-enhancements": "kubernetes", "grpc-proposals": "grpc"}
EVERY = 6


@pytest.fixture(scope="session")
def proposals(real_data: Path) -> dict[str, list[DesignDocument]]:
    """Every sixth proposal of each family."""
    found = {}
    for folder, family in FAMILIES.items():
        files = sorted((real_data / "design-docs" / folder).rglob("*.md"))[::EVERY]
        found[family] = [
            parse(f.relative_to(real_data / "design-docs").as_posix(), f.read_text("utf-8")) for f in files
        ]
    return found
