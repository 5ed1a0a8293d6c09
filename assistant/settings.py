"""One frozen settings tree, built once by each entry point and passed down.

Sources, strongest first: environment (`AI_ASSISTANT_RETRIEVAL__DENSE_WEIGHT=0.5`), then the YAML file
named by `AI_ASSISTANT_CONFIG` (or `config.yaml` in the working directory), then the defaults below.
`DATABASE_URL`, `QDRANT_URL`, `QDRANT_API_KEY` and `MLFLOW_TRACKING_URI` are read under these usual
names too. Unknown keys are refused. The docstring under each field is its manual.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from assistant.errors import ConfigurationError
from assistant.types import PUBLIC

PREFIX = "AI_ASSISTANT_"
WELL_KNOWN = {
    "DATABASE_URL": ("postgres", "url"),
    "QDRANT_URL": ("qdrant", "url"),
    "QDRANT_API_KEY": ("qdrant", "api_key"),
    "MLFLOW_TRACKING_URI": ("mlflow", "tracking_uri"),
}
NOT_SETTINGS = {"AI_ASSISTANT_CONFIG", "AI_ASSISTANT_API_KEY"}
MOST_TORCH_THREADS = 8
"""More do not speed up models of the size that a CPU can train."""


class Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )


class PostgresSettings(Section):
    url: SecretStr | None = None
    """`postgresql://user:password@host:port/database`. Unset: the local stack provides one."""
    pool_max_size: int = Field(8, ge=1, le=100)
    """Connections per replica. Keep replicas x this below the server's max_connections - 5."""
    pool_timeout_s: float = Field(5.0, gt=0)
    """Longest wait for a free connection before the request fails with 503."""


class QdrantSettings(Section):
    url: str | None = None
    """REST address of Qdrant (or of Qdrant Edge behind our REST server)."""
    api_key: SecretStr | None = None
    timeout_s: float = Field(10.0, gt=0)
    collection: str = Field("search_sources", pattern=r"^[A-Za-z0-9_-]{1,200}$")
    """The alias that searches read and ingestion writes."""


class MlflowSettings(Section):
    tracking_uri: str | None = None
    experiment: str = "ai-assistant"
    """The experiment that evaluations and training log to."""


class EmbedderSettings(Section):
    name: str = "all-MiniLM-L6-v2"
    path: Path | None = None
    """Folder with the sentence-transformers model. Unset: `<home>/models/<name>`."""
    dimension: int = Field(384, ge=1)
    max_tokens: int = Field(256, ge=16)
    """The model reads no more than this; chunks are bounded by it."""
    threads: int = Field(1, ge=1)
    """Torch threads per process. More than one spins on busy machines."""
    batch_size: int = Field(32, ge=1, le=256)


class ChunkSettings(Section):
    max_tokens: int = Field(220, ge=32)
    """Most tokens in a chunk's body; the heading path takes the rest of the embedder's window."""
    overlap_tokens: int = Field(24, ge=0)
    min_tokens: int = Field(16, ge=0)
    """Shorter neighbours under one heading are joined."""


class RetrievalSettings(Section):
    fusion: Literal["weighted", "rrf"] = "weighted"
    dense_weight: float = Field(0.6, ge=0, le=1)
    """Share of the dense score in weighted fusion: 1.0 is dense only, 0.0 is BM25 only."""
    rrf_k: int = Field(60, ge=1)
    candidates: int = Field(100, ge=1, le=1000)
    """Hits taken from each side before fusion."""
    limit: int = Field(10, ge=1, le=100)
    """Results when the caller does not say."""
    language: str = "english"
    """BM25 stemming and stop words. Changing it means to ingest again."""
    average_length: float = Field(120.0, gt=0)
    """BM25's mean chunk length in tokens. It shapes stored weights: changing it means to ingest again."""
    answer_passages: int = Field(5, ge=1, le=50)
    """Passages given to the model for an answer."""
    min_dense_score: float = Field(0.3, ge=-1, le=1)
    """An answer needs at least one passage this similar (cosine) or it says that nothing was found."""


class IngestSettings(Section):
    max_document_bytes: int = Field(20_000_000, ge=1)
    batch_size: int = Field(64, ge=1, le=256)
    """Chunks per upsert; Qdrant Edge holds its lock during one."""
    embed_actors: int = Field(1, ge=1)
    small_job_documents: int = Field(16, ge=0)
    """At most this many changed documents are embedded in process: an actor pool costs seconds to start."""


class RfcSettings(Section):
    max_brief_chars: int = Field(20_000, ge=1)
    """Longer briefs, answers included, are refused: attach them to the knowledge base instead."""
    max_questions: int = Field(5, ge=0, le=20)
    """Open questions asked back about a brief."""
    max_clarifications: int = Field(5, ge=0, le=20)
    """`[NEEDS CLARIFICATION: ...]` marks in one document; what lies beyond is only listed as open."""
    queries_per_section: int = Field(3, ge=1, le=10)
    hits_per_query: int = Field(8, ge=1, le=50)
    passages_per_section: int = Field(4, ge=1, le=20)
    """Passages kept as evidence of one section, after duplicates are gone and documents were mixed."""
    passages_per_document: int = Field(2, ge=1, le=20)
    """Most passages of one document within a section, so that no single page writes it."""
    parallel_sections: int = Field(2, ge=1, le=16)
    """Sections (and searches) worked on at once."""
    lead_sentences: bool = False
    """Let a small model (`writing: extractive`) offer one checked lead sentence per section. Off: of some 50
    that the built-in model offered on real evidence, the checks refused all but one, and that one was wrong."""
    section_tokens: int = Field(700, ge=64)
    """Longest section a freely writing model may produce."""
    stage_models: dict[Literal["questions", "sections"], str] = {}
    """Model per stage, by catalogue name; a stage that is not named uses `llm.default_model`."""
    lease_s: float = Field(60.0, gt=0)
    """How long a Writer owns a job between two signs of life; then another one may take over."""
    max_attempts: int = Field(5, ge=1)
    """Times a job is taken up again after a failure that may pass, before it counts as failed."""


class LlmSettings(Section):
    models_file: Path = Path("models.yaml")
    """The models this installation offers; see the comments in that file."""
    default_model: str = "auto"
    request_timeout_s: float = Field(120.0, gt=0)
    """Deadline of one request over all its attempts."""
    max_output_tokens: int = Field(1024, ge=1)
    """Completion length when the caller does not say."""


class ServeSettings(Section):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    max_body_bytes: int = Field(1_000_000, ge=1)
    max_ongoing_requests: int = Field(64, ge=1)
    """Requests a Router replica works on at once."""
    max_queued_requests: int = Field(128, ge=0)
    """Requests that may wait; beyond it callers get 429 with Retry-After."""
    router_replicas: int = Field(1, ge=1)
    retriever_replicas: int = Field(1, ge=1)
    retriever_cpus: float = Field(0.0, ge=0)
    """Ray CPUs reserved per Retriever replica; 0 on a laptop."""
    llm_cpus: float = Field(0.0, ge=0)
    """Ray CPUs reserved per LocalLLM replica, beside the GPUs that models.yaml names."""
    writer_replicas: int = Field(1, ge=1)
    writer_jobs: int = Field(2, ge=1, le=64)
    """RFCs that a Writer replica works on at once."""
    search_timeout_s: float = Field(30.0, gt=0)
    """Longest wait for the Retriever, also while it is being replaced."""
    stream_interval_ms: float = Field(50.0, ge=0)
    """Tokens produced within this time travel together over a handle; the first goes at once. Each message
    costs 2 to 3 ms of CPU there, and about as much again on its way out."""
    drain_s: float = Field(10.0, ge=0)


class LearningSettings(Section):
    automatic: bool = True
    """Start a learning run by itself when enough feedback came in."""
    min_new_examples: int = Field(10, ge=1)
    """New usable examples that start a run at once."""
    every_h: float = Field(24.0, gt=0)
    """Hours after which a single new example starts a run."""
    retry_h: float = Field(1.0, gt=0)
    """Hours after a run that failed before another one starts by itself."""
    min_quality: float = Field(0.6, ge=0, le=1)
    """Examples below this quality score are kept but not learned from."""
    audience: tuple[str, ...] = (PUBLIC,)
    """Access terms (`public`, `group:<name>`) that everybody holds who may talk to a trained model. Examples
    whose evidence such a reader might not see in full are never trained on."""
    schedule_s: float = Field(5.0, gt=0)
    """How often the Scheduler looks: new feedback becomes examples, a run that is due starts, a dead one
    is started again."""
    relaunch_s: float = Field(60.0, gt=0)
    """How long a started run may take to claim its job before it counts as lost."""
    launch: Literal["cluster", "external"] = "cluster"
    """Who gives a due run its process: the Scheduler, as a Ray job beside what serves, or somebody else who calls
    `python -m training.loop --next` (a RayCronJob on Kubernetes)."""
    max_launches: int = Field(5, ge=1)
    """Starts of one run, after crashes, before it counts as failed."""
    poll_s: float = Field(2.0, gt=0)
    """How soon a replica notices that another adapter is live."""
    rollout: Literal["promote", "canary"] = "promote"
    """What a passed gate does: the candidate becomes champion at once, or challenger until you promote it."""
    canary_share: float = Field(0.1, ge=0, le=1)
    """Share of the requests that a challenger gets before it is promoted."""


class TrainingSettings(Section):
    documents: tuple[Path, ...] = ()
    """Folders of design documents (Markdown, reST) that the model learns to write like."""
    rank: int = Field(16, ge=1, le=256)
    alpha: int = Field(32, ge=1)
    learning_rate: float = Field(2e-4, gt=0)
    max_tokens: int = Field(512, ge=32)
    """Longest training row; longer ones are cut at the end of the answer."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Of the adapter's inputs. On a CPU even a little costs a third of the time."""
    epochs: int = Field(1, ge=1)
    min_steps: int = Field(24, ge=0)
    """Optimizer steps at least: few rows are seen in more epochs, until validation gets no better."""
    rows_per_step: int = Field(8, ge=1)
    """Rows behind one optimizer step, whatever the memory holds at once."""
    batch_tokens: int | None = Field(None, ge=32)
    """Tokens computed at once, padding included. Halved, down to one row, when memory runs out. Unset: 512 on a
    CPU, where more is no faster, and 4096 elsewhere."""
    warmup_share: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    validations_per_epoch: int = Field(2, ge=1)
    patience: int = Field(3, ge=1)
    """Validations without a lower loss after which training stops early."""
    checkpoint_steps: int = Field(10, ge=1)
    """Optimizer steps between two checkpoints: what a killed worker has to repeat at most."""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the frozen base; the adapter and its optimizer are fp32. `auto` is bf16 where the machine has matrix
    units for it."""
    threads: int | None = Field(None, ge=1)
    """Torch threads per worker. Unset: the machine's cores, up to 8, shared among the workers. Serving goes
    first, because learning runs at a low priority."""
    workers: int = Field(1, ge=1)
    """Ray Train workers; each takes its share of every step's rows."""
    worker_cpus: float = Field(1.0, ge=0)
    """CPUs that each worker reserves from Ray."""
    max_failures: int = Field(3, ge=0)
    """Worker deaths that one run survives."""
    max_sections: int = Field(200, ge=0)
    """Most sections of design documents in a training set; they are taken evenly over the documents."""
    max_sections_per_document: int = Field(4, ge=1)
    min_section_words: int = Field(40, ge=1)
    max_validation_rows: int = Field(24, ge=1)
    max_frozen_rows: int = Field(100, ge=1)
    general_share: float = Field(0.25, ge=0, lt=1)
    """Share of general questions among the training rows, answered by the base itself, against forgetting."""

    @property
    def torch_threads(self) -> int:
        return self.threads or max(1, min(MOST_TORCH_THREADS, os.cpu_count() or 1) // self.workers)


class EvalSettings(Section):
    data: Path | None = None
    """Folder that holds `scifact` and `design-docs`. Unset: `shared/data` beside the checkout."""
    draws: int = Field(10_000, ge=100)
    """Bootstrap draws behind every interval."""
    min_gain: float = Field(0.0, ge=0)
    """How much better a promoted model must be on the frozen set, at the paired lower bound."""
    written_rows: int = Field(24, ge=0)
    """Frozen rows that champion and candidate write out in a learning run, for ROUGE-L beside the loss."""
    harm_margin: float = Field(0.02, ge=0)
    """How much worse a promoted model may be on the guard set, at the paired lower bound."""


class SecuritySettings(Section):
    auth: Literal["none", "api_key"] = "none"
    """`none` is for one person on one machine: refused when the server listens beyond loopback."""
    local_groups: tuple[str, ...] = ()
    """Groups of the anonymous principal under `auth: none`."""


class TelemetrySettings(Section):
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    observe_s: float = Field(15.0, gt=0)
    """How often stores are asked whether they answer, and sources, jobs and examples are counted for metrics."""
    trace_content: bool = False
    """Write prompts and answers into traces. They may hold what only their author should read."""


class Settings(Section):
    environment: Literal["local", "production"] = "local"
    home: Path = Path(".local")
    """The state folder: databases, weights, logs. Removable as a whole."""
    postgres: PostgresSettings = PostgresSettings()
    qdrant: QdrantSettings = QdrantSettings()
    mlflow: MlflowSettings = MlflowSettings()
    embedder: EmbedderSettings = EmbedderSettings()
    chunk: ChunkSettings = ChunkSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    ingest: IngestSettings = IngestSettings()
    llm: LlmSettings = LlmSettings()
    rfc: RfcSettings = RfcSettings()
    learning: LearningSettings = LearningSettings()
    training: TrainingSettings = TrainingSettings()
    evals: EvalSettings = EvalSettings()
    serve: ServeSettings = ServeSettings()
    security: SecuritySettings = SecuritySettings()
    telemetry: TelemetrySettings = TelemetrySettings()

    @model_validator(mode="after")
    def _open_server_needs_auth(self) -> Self:
        if self.security.auth == "none" and self.serve.host not in {"127.0.0.1", "localhost", "::1"}:
            raise ValueError(
                f"serve.host is {self.serve.host}: set security.auth to api_key before listening beyond loopback"
            )
        return self

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def adapters_dir(self) -> Path:
        return self.home / "adapters"

    @property
    def embedder_path(self) -> Path:
        return self.embedder.path or self.models_dir / self.embedder.name


def load_settings(
    environ: Mapping[str, str] | None = None,
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Build the settings tree.

    `overrides` (a nested mapping, as in the YAML file) beats everything; tests and the CLI use it.
    Raises ConfigurationError naming the file or variable, the key and what is allowed.
    """
    env = os.environ if environ is None else environ
    path = config_file or Path(env.get("AI_ASSISTANT_CONFIG", "config.yaml"))
    if (config_file or "AI_ASSISTANT_CONFIG" in env) and not path.is_file():
        raise ConfigurationError(
            f"The configuration file {path} does not exist.", hint="Fix AI_ASSISTANT_CONFIG."
        )
    merged: dict[str, Any] = _read_yaml(path) if path.is_file() else {}
    for name, section in WELL_KNOWN.items():
        if env.get(name):
            _put(merged, section, env[name])
    for name, value in env.items():
        if name.startswith(PREFIX) and name not in NOT_SETTINGS:
            keys = tuple(name.removeprefix(PREFIX).lower().split("__"))
            _put(merged, keys, yaml.safe_load(value) if value[:1] in "[{" else value)
    merged = _merge(merged, overrides or {})
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise ConfigurationError(
            f"Wrong settings: {'; '.join(lines)}.",
            hint=f"Look for these keys in {path} and in environment variables named {PREFIX}SECTION__KEY.",
        ) from None
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()})


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise ConfigurationError(f"{path} must hold a mapping of sections, not a {type(loaded).__name__}.")
    return loaded


def _put(tree: dict[str, Any], keys: tuple[str, ...], value: Any) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged
