"""A small knowledge base, a searcher over it that counts, and a brief: what the RFC tests are about."""

import time
from collections.abc import Mapping, Sequence
from uuid import UUID

from assistant.clock import stable_id
from assistant.llm.catalog import Catalog, ModelSpec
from assistant.llm.providers.scripted import Reply, ScriptedBackend
from assistant.llm.routing import LlmRouter
from assistant.retrieval.search import SearchQuery, SearchResult
from assistant.rfc.artefacts import SectionsArtefact
from assistant.rfc.brief import BriefStage
from assistant.rfc.checks import ChecksStage
from assistant.rfc.evidence import EvidenceStage
from assistant.rfc.outline import OutlineStage
from assistant.rfc.questions import QuestionsStage
from assistant.rfc.render import RenderStage
from assistant.rfc.sections import SectionsStage
from assistant.rfc.templates import template
from assistant.rfc.words import content
from assistant.rfc.work import Work
from assistant.settings import Settings, load_settings
from assistant.telemetry import NullMeter
from assistant.types import PUBLIC, Hit, Principal, RequestContext

TITLE = "Automatic expansion of filling volumes"
BRIEF = (
    "Today an engineer on call resizes filling volumes by hand, which took 40 minutes in each of the last 12 "
    "incidents. We will build a controller that expands a volume by 20% when less than 10% of it is free. "
    "A volume must never grow beyond the limit that its team has set. "
    "Volumes whose storage class cannot be resized are out of scope."
)
DOCUMENTS: Mapping[str, tuple[str, str, str]] = {
    "filling": (
        "KubePersistentVolumeFillingUp",
        "Mitigation",
        "If volume resizing is available, it is easiest to increase the capacity of the volume. "
        "To check whether a volume can grow, look at `ALLOWVOLUMEEXPANSION` of its storage class. "
        "See the table below. Service degradation follows when a volume is full.",
    ),
    "readonly": (
        "Running out of space",
        "Impact",
        "A service whose volume is full switches to read only mode within 30 seconds. "
        "Volumes of databases fill up fastest while a migration runs.",
    ),
    "canary": (
        "Safe deployment",
        "Rollout",
        "A canary release sends 5% of the traffic to the new version first. "
        "Every rollout of a controller needs a rollback that takes less than 5 minutes.",
    ),
    "alerts": (
        "Alerting practices",
        "Metrics and alerts",
        "An alert on a volume should fire four hours before the volume is predicted to be full. "
        "Dashboards show free space, growth and the number of expansions per volume.",
    ),
    "testing": (
        "Testing controllers",
        "Integration tests",
        "An integration test of a controller runs against a real API server. "
        "Load tests create 500 volumes and expand them at the same time.",
    ),
    "secret": (
        "Storage contracts",
        "Confidential",
        "Growing a volume of the payment team needs the approval of the finance department.",
    ),
}
ACL: Mapping[str, tuple[str, ...]] = {"secret": ("group:finance",)}
CALLER = Principal("ada")


def passage_hit(name: str, score: float = 1.0, dense: float | None = 0.6) -> Hit:
    title, heading, text = DOCUMENTS[name]
    return Hit(
        chunk_id=stable_id("chunk", name),
        document_id=stable_id("document", name),
        score=score,
        text=text,
        title=title,
        headings=(heading,),
        start=100,
        end=100 + len(text),
        source="runbooks",
        source_type="folder",
        external_id=f"{name}.md",
        content_hash=f"hash-{name}",
        url=f"https://runbooks.example/{name}",
        version="3",
        dense=dense,
    )


def chunk_id(name: str) -> UUID:
    return stable_id("chunk", name)


class WordSearcher:
    """Ranks the documents that a principal may see by shared words. Keeps every query."""

    def __init__(self, names: Sequence[str] = tuple(DOCUMENTS)) -> None:
        self.names = names
        self.queries: list[tuple[str, Principal]] = []

    async def search(self, query: SearchQuery, principal: Principal) -> SearchResult:
        self.queries.append((query.text, principal))
        wanted = set(content(query.text))
        scored = []
        for name in self.names:
            if not set(ACL.get(name, (PUBLIC,))) & set(principal.acl_terms()):
                continue
            shared = len(wanted & set(content(" ".join(DOCUMENTS[name]))))
            if shared:
                scored.append(passage_hit(name, score=float(shared)))
        scored.sort(key=lambda h: (-h.score, h.title))
        return SearchResult(tuple(scored[: query.limit]), {})


def settings(**rfc: object) -> Settings:
    return load_settings(environ={}, overrides={"rfc": rfc})


def context(principal: Principal = CALLER, seconds: float = 600) -> RequestContext:
    return RequestContext("request-1", principal, time.time() + seconds)


def router(replies: Sequence[Reply | str], writing: str = "extractive", tokens: int = 4096) -> LlmRouter:
    spec = ModelSpec.model_validate(
        {"name": "script", "engine": "scripted", "writing": writing, "context_tokens": tokens}
    )
    return LlmRouter(Catalog((spec,)), [ScriptedBackend(spec, replies)], NullMeter(), lambda attempt: None)


def no_models() -> LlmRouter:
    return LlmRouter(Catalog(()), [], NullMeter(), lambda attempt: None)


def work(
    title: str = TITLE,
    brief: str = BRIEF,
    *,
    answers: Mapping[str, str] | None = None,
    searcher: WordSearcher | None = None,
    llm: LlmRouter | None = None,
    principal: Principal = CALLER,
    **rfc: object,
) -> Work:
    return Work(
        title=title,
        brief=brief,
        answers=answers or {},
        template=template("new_feature"),
        context=context(principal),
        settings=settings(**rfc),
        searcher=searcher or WordSearcher(),
        llm=llm or no_models(),
    )


async def until(work: Work, last: str) -> Work:
    """Run the stages one after the other, up to and with `last`."""

    async def ignore(so_far: SectionsArtefact) -> None:
        del so_far

    for stage in (
        BriefStage(),
        QuestionsStage(),
        EvidenceStage(),
        OutlineStage(),
        SectionsStage(),
        ChecksStage(),
        RenderStage(),
    ):
        if isinstance(stage, SectionsStage):
            work.artefacts[stage.name] = await stage.run(work, ignore)
        else:
            work.artefacts[stage.name] = await stage.run(work)
        if stage.name == last:
            return work
    raise AssertionError(f"no stage {last}")
