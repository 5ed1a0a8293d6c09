"""Are the documents of a folder built as those of their family are? Drafts beside what authors wrote.

No model is asked: the documents are what is judged. One that fits no family's template is left out and counted.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from assistant.errors import InvalidInput
from assistant.settings import Settings
from evals.documents import DesignDocument
from evals.results import CaseResult, SuiteResult, summarise
from evals.structure import OTHER, TEMPLATES, family_of, structure

NAME = "structure"
SYSTEM = "document"

Step = Callable[[str, int, int], None]


def run(
    documents: Sequence[DesignDocument],
    settings: Settings,
    *,
    meta: Mapping[str, Any] | None = None,
    step: Step = lambda *_: None,
) -> SuiteResult:
    """Score every document against its family's template. Raises InvalidInput when none fits any."""
    cases, families = [], Counter[str]()
    for number, document in enumerate(documents, 1):
        family = family_of(document)
        families[family] += 1
        if family != OTHER:
            cases.append(_case(document, family))
        step("score", number, len(documents))
    if not cases:
        raise InvalidInput(
            f"None of {len(documents)} documents follows a template of {', '.join(TEMPLATES)}.",
            field="--data",
        )
    digest = hashlib.sha256("".join(d.text_hash for d in documents).encode()).hexdigest()
    return summarise(
        NAME,
        f"{SYSTEM}/score",
        cases,
        [],
        {"data_hash": digest, "documents": len(documents), "families": dict(families), **(meta or {})},
        settings.evals.draws,
    )


def _case(document: DesignDocument, family: str) -> CaseResult:
    found = structure(document, family)
    values = {
        "score": found.score,
        "recall": found.recall,
        "filled": found.filled,
        "order": found.order,
        "distinct": found.distinct,
    }
    return CaseResult(
        id=document.path,
        group=document.path,
        values={f"{SYSTEM}/{name}": value for name, value in values.items() if value is not None},
        detail={
            "title": document.title,
            "family": family,
            "words": {key: str(count) for key, count in found.words.items()},
            "missing": [key for key in TEMPLATES[family].required if key not in found.words],
        },
    )
