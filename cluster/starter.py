"""The starter knowledge: what `dataset_config.yml` names, ingested once, on the first start."""

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from assistant.clock import now
from assistant.errors import AssistantError, Unavailable
from assistant.settings import Settings
from cluster.files import write_private
from cluster.ingestion import run_ingestion
from cluster.layout import Layout
from cluster.plan import Plan

if TYPE_CHECKING:
    from rich.console import Console

Done = Callable[[str, float, str], None]


def ingest_starter(
    settings: Settings, layout: Layout, plan: Plan, config: Path, done: Done, console: "Console | None" = None
) -> bool:
    """Ingest `config` unless that was done. A run that was interrupted is completed by the next `up`.

    True when something was ingested. Raises Unavailable: the stack runs, only this step failed.
    """
    digest = hashlib.sha256(config.read_bytes()).hexdigest() if config.is_file() else ""
    if not digest or _done_before(layout) == digest:
        return False
    started = time.monotonic()
    if console:
        console.print(
            f"The page answers at {plan.urls['page']}; ingesting the starter knowledge.", markup=False
        )
    try:
        report = asyncio.run(run_ingestion(settings, layout, plan, config=config, console=console))
    except AssistantError as error:
        raise _failure(str(error)) from error
    failed = [source for source in report.sources if source.error]
    if failed:
        raise _failure(f"{failed[0].source}: {failed[0].error}")
    counts = {
        "documents": sum(s.documents for s in report.sources),
        "chunks": sum(s.chunks for s in report.sources),
        "skipped": sum(s.failed for s in report.sources),
    }
    write_private(
        layout.starter_done, json.dumps({"config": digest, "at": now().isoformat(), **counts}) + "\n"
    )
    skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
    done(
        "knowledge",
        time.monotonic() - started,
        f"{counts['documents']} documents, {counts['chunks']} new chunks{skipped}",
    )
    return True


def _done_before(layout: Layout) -> str:
    try:
        return str(json.loads(layout.starter_done.read_text())["config"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _failure(reason: str) -> Unavailable:
    return Unavailable(
        f"The starter knowledge could not be ingested: {reason}",
        hint="Everything else runs. Remove the cause and run `ai-assistant up` again, or `ai-assistant ingest`.",
    )
