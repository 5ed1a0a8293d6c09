"""Servers that answer over a wire, and the scripted one, behind the one `Backend` protocol."""

from collections.abc import Mapping

from assistant.errors import ConfigurationError
from assistant.llm.catalog import ModelSpec, read_options
from assistant.llm.providers.ollama import OllamaBackend, OllamaOptions
from assistant.llm.providers.openai_compatible import OpenAICompatibleBackend, OpenAIOptions
from assistant.llm.providers.scripted import ScriptedBackend, ScriptedOptions

RemoteBackend = OpenAICompatibleBackend | OllamaBackend | ScriptedBackend


def create_backend(spec: ModelSpec, environ: Mapping[str, str] | None = None) -> RemoteBackend:
    """The backend of a model that is not loaded on this cluster.

    Raises ConfigurationError when `options` are wrong. A key that is not set is no error here: that backend
    says so in its health and is passed over, and the others work.
    """
    if spec.engine == "openai_compatible":
        return OpenAICompatibleBackend(spec, read_options(spec, OpenAIOptions), environ=environ)
    if spec.engine == "ollama":
        return OllamaBackend(spec, read_options(spec, OllamaOptions), environ=environ)
    if spec.engine == "scripted":
        options = read_options(spec, ScriptedOptions)
        return ScriptedBackend(spec, options.replies, options.state)
    raise ConfigurationError(
        f"{spec.name}: {spec.engine} is a local engine, not a remote server.",
        hint="It runs in a LocalLLM deployment.",
    )
