"""Evaluations from the command line: data, a store of their own, the model that is asked, where results go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assistant.errors import AssistantError, NotFound
from assistant.settings import MlflowSettings, Settings
from cluster.cli.installation import Installation
from cluster.layout import ROOT
from cluster.temporary_qdrant import temporary_qdrant

if TYPE_CHECKING:
    from assistant.retrieval.search import Mode
    from evals.cases import SectionCase
    from evals.documents import DesignDocument
    from evals.results import SuiteResult
    from evals.runs import StoredRun
    from evals.splits import Split

Step = Callable[[str, int, int], None]

BESIDE = ROOT.parent / "shared" / "data"
"""Where data lie that no setting names: beside the checkout."""
FOLDERS = {"scifact": "scifact", "sections": "design-docs", "structure": "design-docs"}
SECTIONS_LIMIT = 100
COLLECTION = "evaluation"


class NoData(NotFound):
    """The data of a suite are not on this machine, and nobody said where they are."""

    code = "no_data"


@dataclass(frozen=True)
class Evaluation:
    """One run of a suite. `progress` is told what goes on; `warn` what people should know."""

    installation: Installation
    progress: Step
    warn: Callable[[str], None]

    @property
    def settings(self) -> Settings:
        return self.installation.settings

    def data(self, suite: str, given: Path | None) -> Path:
        """Raises NoData when none was given and none is at the usual place."""
        if given is not None:
            return given
        folder = (self.settings.evals.data or BESIDE) / FOLDERS[suite]
        if not folder.exists():
            raise NoData(
                f"The data of {suite} are not there ({folder}).",
                hint="Name their folder with --data, or the folder above with AI_ASSISTANT_EVALS__DATA.",
            )
        return folder

    async def judged(
        self, folder: Path, modes: Sequence["Mode"], split: str, limit: int | None
    ) -> "SuiteResult":
        """Retrieval over a judged collection. Raises InvalidInput naming file and line, StoreUnavailable."""
        from assistant.retrieval.embedders import SentenceTransformerEmbedder
        from assistant.stores.vectors import VectorStore
        from evals.beir import load_beir
        from evals.suites import judged
        from evals.vector_cache import VectorCache, model_hash

        settings, path = self.settings, self.settings.embedder_path
        collection = load_beir(folder, split)
        embedder = settings.embedder
        fingerprint = model_hash(path)
        cache = VectorCache(self.home / "cache", fingerprint, embedder.max_tokens, embedder.dimension)
        texts = [*collection.documents.values(), *collection.queries.values()]
        loaded: list[SentenceTransformerEmbedder] = []

        def embed(missing: Sequence[str]) -> Any:
            if not loaded:
                loaded.append(SentenceTransformerEmbedder(embedder, path))
            return loaded[0].embed(missing)

        vectors = cache.vectors(texts, embed, lambda done, all_: self.progress("embed", done, all_))
        count = len(collection.documents)
        with temporary_qdrant(self.home, COLLECTION) as qdrant:
            store = VectorStore(qdrant)
            try:
                return await judged.run(
                    judged.Vectorised(collection, vectors[:count], vectors[count:]),
                    store,
                    settings.model_copy(update={"qdrant": qdrant}),
                    modes=modes,
                    limit=limit,
                    meta={
                        "model": embedder.name,
                        "model_hash": fingerprint,
                        "collection": collection.name,
                        "embedded": len(texts) if loaded else 0,
                    },
                    step=self.progress,
                )
            finally:
                await store.close()

    async def sections(
        self,
        source: Path,
        model: str | None,
        split: "Split | None",
        limit: int | None,
        evidence_in_prompt: bool,
    ) -> "SuiteResult":
        """Sections of design documents; without a model only its floors. Raises InvalidInput, NotRunning."""
        from assistant.stores.vectors import VectorStore
        from evals.cases import choose
        from evals.evidence import SectionEvidence
        from evals.suites import sections
        from evals.targets import HttpWriter
        from evals.text_metrics import Meteor

        writer = None
        if model is not None:
            writer = HttpWriter(self.installation.url(), model, self.installation.api_key())
        documents, pool = _pool(source)
        cases = choose(pool, split, limit)
        if not cases:
            raise NotFound(f"{source} has no cases in the split {split!r}.", hint="Try --split all.")
        meteor = Meteor.available(self.settings.home)
        if meteor is None:
            from evals.wordnet import HOW

            self.warn(f"METEOR is not available: WordNet is not on this machine. {HOW}")
        meta = {"model": model or "none", "collection": source.name, "split": split or "all"}
        with temporary_qdrant(self.home, COLLECTION) as qdrant:
            store = VectorStore(qdrant)
            try:
                settings = self.settings.model_copy(update={"qdrant": qdrant})
                evidence = None
                if documents:
                    evidence = await SectionEvidence.index(store, settings, documents, self.progress)
                return await sections.run(
                    cases,
                    settings,
                    pool=pool,
                    writer=writer,
                    evidence=evidence,
                    evidence_in_prompt=evidence_in_prompt,
                    meteor=meteor,
                    meta=meta,
                    step=self.progress,
                )
            finally:
                await store.close()
                if writer is not None:
                    await writer.aclose()

    def structure(self, folder: Path, split: "Split | None", limit: int | None) -> "SuiteResult":
        """How documents are built. Raises InvalidInput naming what cannot be read."""
        from evals.documents import read_folder
        from evals.splits import split_of
        from evals.suites import structure

        documents = [d for d in read_folder(folder) if split is None or split_of(d.path) == split]
        if not documents:
            raise NotFound(f"{folder} has no document in the split {split!r}.", hint="Try --split all.")
        meta = {"collection": folder.name, "split": split or "all"}
        return structure.run(documents[:limit], self.settings, meta=meta, step=self.progress)

    def keep(self, result: "SuiteResult") -> tuple["StoredRun", str | None]:
        """Store a result, then tell MLflow: (run, MLflow's id or None while it waits)."""
        from evals.report import render
        from evals.runs import RunStore, code_version
        from evals.tracking import Tracker

        subtitle = f"revision {code_version()[:12]}"
        run = RunStore(self.settings.home).save(result, render(result, subtitle))
        tracker = Tracker(self.settings.home, stack_mlflow(self.installation))
        return run, tracker.submit(run)

    @property
    def home(self) -> Path:
        return self.settings.home / "evals"


def stack_mlflow(installation: Installation) -> MlflowSettings:
    """The stack's MLflow when no other is set; it need not run."""
    found = installation.settings.mlflow
    if found.tracking_uri is not None:
        return found
    try:
        uri = installation.plan().env.get("MLFLOW_TRACKING_URI")
    except AssistantError:
        uri = None
    return found.model_copy(update={"tracking_uri": uri})


def _pool(source: Path) -> "tuple[list[DesignDocument], list[SectionCase]]":
    """The documents of a folder with their cases; a file of cases has no documents."""
    from evals.cases import load_sections, sections_of
    from evals.documents import read_folder

    if source.is_file():
        return [], load_sections(source)
    documents = read_folder(source)
    return documents, sections_of(documents, str(source))
