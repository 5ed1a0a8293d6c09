"""Stage 5: write the sections, bounded in parallel, and report them in the order of the document.

With a small model the sections are assembled and the model may add one checked sentence to each; with a
large one it writes them from numbered evidence. Sections that an earlier run finished are kept.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Literal

from assistant.rfc.artefacts import OutlineArtefact, PlannedSection, SectionDraft, SectionsArtefact
from assistant.rfc.composing import Composer
from assistant.rfc.free import write_freely
from assistant.rfc.lead import with_lead
from assistant.rfc.work import Work

Report = Callable[[SectionsArtefact], Awaitable[None]]


class SectionsStage:
    name = "sections"

    async def run(
        self, work: Work, report: Report, earlier: SectionsArtefact | None = None
    ) -> SectionsArtefact:
        """`report` gets what is finished so far, after each section and in document order."""
        outline = work.of(OutlineArtefact)
        phraser = work.phraser(self.name)
        spec = phraser.spec()
        writing: Literal["extractive", "free"] = "free" if spec and spec.writing == "free" else "extractive"
        assembled = await asyncio.to_thread(Composer(work).compose_all, outline)
        gate = asyncio.Semaphore(work.settings.rfc.parallel_sections)

        async def write(plan: PlannedSection, draft: SectionDraft) -> SectionDraft:
            section = work.template.section(plan.key)
            if spec is None:
                return replace(draft, use=phraser.used())
            idle = writing == "extractive" and not work.settings.rfc.lead_sentences
            if idle or section.kind in {"questions", "references"}:
                return draft
            async with gate:
                if writing == "extractive":
                    return await with_lead(draft, work)
                free = await write_freely(plan, section, work, spec.context_tokens)
                return free if free.blocks else replace(draft, use=free.use, dropped=free.dropped)

        done = list(earlier.sections) if earlier else []
        todo = list(zip(outline.kept(), assembled, strict=True))[len(done) :]
        tasks = [asyncio.create_task(write(plan, draft)) for plan, draft in todo]
        try:
            for task in tasks:
                done.append(await task)
                await report(SectionsArtefact(tuple(done), writing, complete=False))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return SectionsArtefact(tuple(done), writing, complete=True)
