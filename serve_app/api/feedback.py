"""Feedback on answers, search results and RFCs: the last opinion of a person on a thing counts."""

from uuid import UUID

from fastapi import APIRouter

from assistant.errors import Conflict, InvalidInput, NotFound
from assistant.learning.sections import written_sections
from assistant.stores.feedback import FeedbackRecord, Target, was_just_made
from assistant.stores.rfcs import RfcRecord
from assistant.types import Principal
from serve_app.api.auth import Caller, Graph
from serve_app.api.learning_schemas import (
    AnswerFeedback,
    FeedbackItem,
    FeedbackList,
    RfcFeedback,
    SearchFeedback,
)
from serve_app.api.services import Services

NEUTRAL_STARS = 3

router = APIRouter(prefix="/api/v1", tags=["Feedback"])


@router.post("/answers/{answer_id}/feedback", summary="Rate, comment or correct an answer")
async def on_answer(answer_id: UUID, body: AnswerFeedback, graph: Graph, caller: Caller) -> FeedbackItem:
    """`answer_id` is `assistant.id` of a chat completion by the model `assistant`."""
    visible = await graph.learning.answers.visible(answer_id, caller.id, caller.acl_terms())
    if not (visible or (visible is None and was_just_made(answer_id))):
        raise NotFound(f"There is no answer {answer_id} that you may rate.")
    given = await graph.learning.feedback.give(
        "answer", answer_id, caller.id, body.opinion(), verified=bool(visible)
    )
    return _counted(graph, given)


@router.post("/search/{query_id}/feedback", summary="Rate a search or one of its results")
async def on_search(query_id: UUID, body: SearchFeedback, graph: Graph, caller: Caller) -> FeedbackItem:
    seen = await graph.learning.feedback.search(query_id)
    known = was_just_made(query_id) if seen is None else seen.principal_id == caller.id
    if not known:
        raise NotFound(f"There is no search {query_id} of yours.")
    if seen is not None and body.chunk_id is not None and body.chunk_id not in seen.chunk_ids:
        raise NotFound(f"The search found no passage {body.chunk_id}.", field="chunk_id")
    given = await graph.learning.feedback.give(
        "search", query_id, caller.id, body.opinion(), chunk_id=body.chunk_id, verified=seen is not None
    )
    return _counted(graph, given)


@router.post("/rfc/{rfc_id}/feedback", summary="Rate, comment or correct an RFC or one of its sections")
async def on_rfc(rfc_id: UUID, body: RfcFeedback, graph: Graph, caller: Caller) -> FeedbackItem:
    rfc = await _rfc(graph, rfc_id, caller)
    if rfc.status != "done":
        raise Conflict(f"The RFC is {rfc.status}, not done.", hint="Rate it when it is written.")
    if body.edited_text is not None and body.section is None:
        raise InvalidInput(
            "An edit must say which section it replaces.", hint="Give `section`.", field="section"
        )
    section = None if body.section is None else _section(rfc, body.section)
    given = await graph.learning.feedback.give("rfc", rfc_id, caller.id, body.opinion(), section=section)
    return _counted(graph, given)


@router.get("/answers/{answer_id}/feedback", summary="What the caller said of an answer")
async def of_answer(answer_id: UUID, graph: Graph, caller: Caller) -> FeedbackList:
    return await _own(graph, "answer", answer_id, caller)


@router.get("/search/{query_id}/feedback", summary="What the caller said of a search")
async def of_search(query_id: UUID, graph: Graph, caller: Caller) -> FeedbackList:
    return await _own(graph, "search", query_id, caller)


@router.get("/rfc/{rfc_id}/feedback", summary="What the caller said of an RFC and its sections")
async def of_rfc(rfc_id: UUID, graph: Graph, caller: Caller) -> FeedbackList:
    await _rfc(graph, rfc_id, caller)
    return await _own(graph, "rfc", rfc_id, caller)


def _counted(graph: Services, given: FeedbackRecord) -> FeedbackItem:
    graph.meter.add("ai_assistant_feedback_total", target=given.target, opinion=_opinion(given))
    return FeedbackItem.of(given)


def _opinion(given: FeedbackRecord) -> str:
    """The last word as one of five: a thumb says more than stars, stars more than a text alone."""
    if given.thumb is not None:
        return "positive" if given.thumb > 0 else "negative"
    if given.stars is not None:
        return (
            "positive"
            if given.stars > NEUTRAL_STARS
            else "neutral"
            if given.stars == NEUTRAL_STARS
            else "negative"
        )
    return "edit" if given.edited_text is not None else "comment"


async def _own(graph: Services, target: Target, target_id: UUID, caller: Principal) -> FeedbackList:
    found = await graph.learning.feedback.own(target, target_id, caller.id)
    return FeedbackList(items=[FeedbackItem.of(record) for record in found])


async def _rfc(graph: Services, rfc_id: UUID, caller: Principal) -> RfcRecord:
    rfc = await graph.rfcs.get(rfc_id, caller.acl_terms())
    if rfc is None:
        raise NotFound(f"There is no RFC {rfc_id} that you may read.")
    return rfc


def _section(rfc: RfcRecord, wanted: str) -> str:
    """The title as it stands in the document."""
    titles = list(written_sections(rfc.content_markdown))
    name = " ".join(wanted.replace("_", " ").casefold().split())
    for title in titles:
        if title.casefold() == name:
            return title
    raise InvalidInput(
        f"The RFC has no section {wanted!r}.", hint=f"Use one of: {', '.join(titles)}.", field="section"
    )
