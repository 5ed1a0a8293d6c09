"""What the steps of a learning run work with, and which model learns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from assistant.errors import ConfigurationError
from assistant.llm.catalog import Catalog, ModelSpec
from assistant.llm.engines import hf_folder
from assistant.settings import Settings
from assistant.stores.deployments import DeploymentRepository
from assistant.stores.examples import ExampleRepository
from training.loop_folder import RunFolder
from training.registry import Registry

Tell = Callable[[str], None]
"""Says how far the step is; may be called from any thread."""


@dataclass(frozen=True)
class Work:
    """What the steps work with. `documents` are folders of design documents."""

    settings: Settings
    spec: ModelSpec
    folder: RunFolder
    examples: ExampleRepository
    deployments: DeploymentRepository
    documents: Sequence[Path]
    run_id: str

    @property
    def hf(self) -> Path:
        return transformers_folder(self.spec, self.settings.models_dir)

    @property
    def registry(self) -> Registry:
        return Registry(self.settings.mlflow.tracking_uri)


def transformers_folder(spec: ModelSpec, models_dir: Path) -> Path:
    """The weights that training reads. Raises ConfigurationError when the model has only others."""
    found = hf_folder(spec, models_dir)
    if found is None:
        raise ConfigurationError(
            f"{spec.name} has no transformers weights beside {spec.path}, and training needs them.",
            hint="Put them into the folder `hf` beside the GGUF file, or name another model.",
        )
    return found


def learning_spec(catalog: Catalog, name: str | None = None) -> ModelSpec:
    """The model that learns: the one asked for, or the best local one. Raises ConfigurationError."""
    local = catalog.local()
    if name is not None:
        local = tuple(spec for spec in local if spec.name == name)
    if not local:
        known = ", ".join(spec.name for spec in catalog.local()) or "none"
        raise ConfigurationError(
            f"There is no local model {name or ''} to train.".replace("  ", " "),
            hint=f"Local models in models.yaml: {known}. Remote models cannot be fine-tuned here.",
        )
    return local[0]
