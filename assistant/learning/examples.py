"""Feedback → examples.

- An answer: the prompt that answers are written from, with the cited passages, and the answer (or what
  somebody made of it).
- A section of an RFC: title, brief and the section's name, and its text (or what somebody made of it),
  without citation markers, as the prompt has no passages to cite. A rating of the whole RFC speaks for each
  section that was not rated on its own, a little more quietly.

Of several edits of one text the latest counts.
"""

from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID

from assistant.clock import stable_id
from assistant.learning.quality import Cited, Quality, assess, stars_of
from assistant.learning.sections import markers, without_markers, written_sections
from assistant.retrieval.answer import UNCITED, quoted_passage
from assistant.retrieval.extract import LABEL
from assistant.retrieval.prompts import load_prompt
from assistant.stores.answers import fingerprint
from assistant.stores.examples import ExampleDraft, Maker, RatedAnswer, RatedRfc
from assistant.stores.feedback import FeedbackRecord
from assistant.types import Message

SECTION_PROMPT = "rfc_section"
UNCITED_PASSAGES = 2
"""Passages shown when the answer cites none."""


def of_answer(rated: RatedAnswer) -> list[ExampleDraft]:
    """None or one."""
    answer = rated.answer
    own = bare(answer.text)
    edit = _edit(rated.feedback)
    # An edit that changes nothing is a word of approval.
    changed = edit if edit and edit.edited_text and bare(edit.edited_text) != own else None
    text = bare(changed.edited_text or "") if changed else own
    said = [int(m) for m in markers(text) if m.isdigit()]
    cited = Cited(len(said), sum(m in answer.markers for m in said), expected=bool(answer.evidence))
    quality = assess(
        text,
        cited,
        rated.feedback if changed else (*rated.feedback, *rated.twins),
        original=own if changed else None,
    )
    if quality is None:
        return []
    shown = [e for e in answer.evidence if e.marker is not None] or answer.evidence[:UNCITED_PASSAGES]
    passages = "\n\n".join(quoted_passage(e.marker or n, e) for n, e in enumerate(shown, 1))
    prompt = load_prompt("answer").fill(passages=passages)
    return [
        ExampleDraft(
            id=stable_id("example", "answer", str(answer.id)),
            kind="answer",
            messages=(Message("system", prompt), *answer.messages),
            response=text,
            quality=quality.score,
            # Without evidence there is nothing that the answer could be checked against.
            positive=quality.positive and (answer.grounded or changed is not None),
            document_ids=answer.document_ids,
            owner=f"user:{answer.principal_id}",
            owner_only=len(answer.messages) > 1,
            fingerprint=fingerprint("answer", answer.question, text),
            split_hash=fingerprint("answer", answer.question),
            rating_key=f"answer:{answer.id}",
            stars=stars_of(rated.feedback),
            comment=_comment(rated.feedback),
            improvement_areas=quality.areas,
            principal_id=changed.principal_id if changed else answer.principal_id,
            answer_id=answer.id,
            metadata={
                **_parts(quality),
                "edited": changed is not None,
                "model": answer.model,
                "adapter": answer.adapter,
                "extractive": answer.extractive,
            },
        )
    ]


def of_rfc(rated: RatedRfc) -> list[ExampleDraft]:
    """One for every section that the feedback says something about."""
    whole = [f for f in rated.feedback if f.section is None]
    drafts = []
    for title, text in written_sections(rated.markdown).items():
        own = [
            f for f in rated.feedback if f.section is not None and f.section.casefold() == title.casefold()
        ]
        draft = _of_section(rated, title, text, own or whole, whole=not own)
        if draft is not None:
            drafts.append(draft)
    return drafts


MAKER = Maker(of_answer, of_rfc)


def bare(text: str) -> str:
    """An answer without what the product adds to it."""
    return text.strip().removesuffix(LABEL).removesuffix(UNCITED.strip()).strip()


def _of_section(
    rated: RatedRfc, title: str, text: str, feedback: Sequence[FeedbackRecord], *, whole: bool
) -> ExampleDraft | None:
    edit = _edit(feedback)
    changed = edit if edit and edit.edited_text and edit.edited_text.strip() != text else None
    written = (changed.edited_text or "").strip() if changed else text
    said = markers(written)
    resolved = sum(not m.isdigit() or int(m) in rated.sources for m in said)
    quality = assess(
        without_markers(written),
        # An edited section need not cite: its author stands for it.
        Cited(len(said), resolved, expected=bool(rated.sources) and changed is None),
        feedback,
        original=without_markers(text) if changed else None,
        whole=whole,
    )
    if quality is None:
        return None
    documents = dict.fromkeys(rated.sources[int(m)] for m in said if m.isdigit() and int(m) in rated.sources)
    prompt = load_prompt(SECTION_PROMPT).fill(title=rated.title, brief=rated.brief, section=title)
    response = without_markers(written)
    return ExampleDraft(
        id=stable_id("example", "rfc", str(rated.id), title.casefold()),
        kind="rfc_section",
        messages=(Message("user", prompt),),
        response=response,
        quality=quality.score,
        positive=quality.positive,
        document_ids=tuple(documents),
        owner=f"user:{rated.principal_id}",
        also=rated.acl,
        fingerprint=fingerprint("rfc_section", rated.title, title, response),
        split_hash=fingerprint("rfc", rated.title, rated.brief),
        rating_key=_rating_key(rated.id, None if whole else title),
        stars=stars_of(feedback),
        comment=_comment(feedback),
        improvement_areas=quality.areas,
        principal_id=changed.principal_id if changed else rated.principal_id,
        rfc_id=rated.id,
        section=title,
        metadata={
            **_parts(quality),
            "edited": changed is not None,
            "whole": whole,
            "model": rated.model,
            "title": rated.title,
        },
    )


def _rating_key(rfc_id: UUID, section: str | None) -> str:
    return f"rfc:{rfc_id}" if section is None else f"rfc:{rfc_id}:{section.casefold()}"


def _edit(feedback: Sequence[FeedbackRecord]) -> FeedbackRecord | None:
    edits = [f for f in feedback if f.edited_text]
    return max(edits, key=lambda f: f.updated_at) if edits else None


def _comment(feedback: Sequence[FeedbackRecord]) -> str | None:
    return "\n".join(f.comment for f in feedback if f.comment) or None


def _parts(quality: Quality) -> dict[str, object]:
    return {
        "quality": {
            name: round(value, 3) for name, value in asdict(quality).items() if isinstance(value, float)
        }
    }
