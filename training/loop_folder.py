"""What a learning run keeps on disk: one result per finished step, so that a run goes on where it was."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from assistant.stores.examples import LearningExample
from assistant.types import Message
from training.folders import write_json


@dataclass(frozen=True)
class RunFolder:
    """`<home>/learning/runs/<id>`. A step's result is written last and atomically: without it the step is
    done again."""

    path: Path

    @classmethod
    def of(cls, home: Path, run_id: UUID) -> "RunFolder":
        folder = cls(home / "learning" / "runs" / str(run_id))
        folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def result(self, step: str) -> dict[str, Any] | None:
        file = self._file(step)
        if not file.is_file():
            return None
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    def keep(self, step: str, result: Mapping[str, Any]) -> None:
        """Raises ConfigurationError naming the path when the disk refuses."""
        write_json(self._file(step), dict(result))

    def keep_examples(self, examples: Sequence[LearningExample]) -> None:
        """Examples change while a run works; what it learns from must not."""
        write_json(self.path / "examples.json", [_plain(example) for example in examples])
        # They quote documents that not every user of this machine may read.
        os.chmod(self.path / "examples.json", 0o600)

    def examples(self) -> list[LearningExample]:
        raw = json.loads((self.path / "examples.json").read_text(encoding="utf-8"))
        return [_example(item) for item in raw]

    def _file(self, step: str) -> Path:
        return self.path / f"{step}.json"


def _plain(example: LearningExample) -> dict[str, Any]:
    return {
        "id": str(example.id),
        "kind": example.kind,
        "messages": [{"role": m.role, "content": m.content} for m in example.messages],
        "response": example.response,
        "quality": example.quality,
        "acl": list(example.acl),
        "document_ids": [str(d) for d in example.document_ids],
        "rfc_id": str(example.rfc_id) if example.rfc_id else None,
        "created_at": example.created_at.isoformat(),
        "metadata": dict(example.metadata),
    }


def _example(raw: Mapping[str, Any]) -> LearningExample:
    return LearningExample(
        id=UUID(raw["id"]),
        kind=raw["kind"],
        messages=tuple(Message(m["role"], m["content"]) for m in raw["messages"]),
        response=raw["response"],
        quality=raw["quality"],
        acl=tuple(raw["acl"]),
        document_ids=tuple(UUID(d) for d in raw["document_ids"]),
        rfc_id=UUID(raw["rfc_id"]) if raw["rfc_id"] else None,
        created_at=datetime.fromisoformat(raw["created_at"]),
        metadata=raw["metadata"],
    )
