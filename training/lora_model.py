"""The base with LoRA layers, on the device and in the number format that pay, and its loss."""

import inspect
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from assistant.errors import ConfigurationError
from assistant.loading import LOADING
from assistant.settings import TrainingSettings
from training.encoding import IGNORED, Batch
from training.folders import write_bytes

ADAPTER_WEIGHTS = "adapter_model.safetensors"
State = dict[str, torch.Tensor]
Precision = Literal["auto", "fp32", "bf16"]


def choose_device(wanted: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. ConfigurationError when a named one is absent."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name in there if there[name]))
    if not there.get(wanted, False):
        raise ConfigurationError(
            f"training.device is {wanted}, which this machine does not have.", hint="Set it to auto."
        )
    return torch.device(wanted)


def choose_dtype(device: torch.device, precision: Precision = "auto") -> torch.dtype:
    """What the frozen base computes in. `auto` is bf16 where matrix units make it faster: GPUs that compute in
    it, and CPUs with AMX (1.5 times fp32 when training, 1.7 times when scoring); elsewhere fp32."""
    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return torch.bfloat16 if fast else torch.float32


def load_base(base: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The frozen causal model. ConfigurationError naming the folder when it cannot be read."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        with LOADING:
            model = AutoModelForCausalLM.from_pretrained(str(base), dtype=dtype, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"The base model in {base} cannot be loaded: {error}.") from None
    model.config.use_cache = False
    return model.to(device).requires_grad_(False).eval()


def add_lora(model: Any, base_name: str, settings: TrainingSettings) -> Any:
    """LoRA over all linear layers but the head, initialised from the seed.

    `base_name` is an id, not a path: it is stored in the adapter and read on other machines.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        bias="none",
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    made = adapted.peft_config["default"]
    made.base_model_name_or_path = base_name
    # A set, whose order would differ from process to process in the file.
    made.target_modules = sorted(made.target_modules)
    _leave_casts_to_autocast(adapted)
    return adapted


def read_adapter(model: Any, folder: Path) -> Any:
    """The base with the adapter of `folder`, ready to score. ConfigurationError when it does not fit."""
    from peft import PeftModel
    from safetensors import SafetensorError, safe_open

    try:
        adapted = PeftModel.from_pretrained(model, str(folder), is_trainable=False)
        with safe_open(folder / ADAPTER_WEIGHTS, "pt") as stored:
            # PEFT takes what fits and is silent about the rest.
            strange = set(stored.keys()) ^ set(adapter_state(adapted))
        if strange:
            raise ValueError(f"{len(strange)} tensors have no partner, {min(strange)} among them")
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigurationError(
            f"The adapter in {folder} does not fit this base: {str(error)[:300]}.",
            hint="Take the base that adapter_config.json names, or train the adapter again.",
        ) from None
    _leave_casts_to_autocast(adapted)
    return adapted.eval()


def _leave_casts_to_autocast(adapted: Any) -> None:
    """PEFT would turn every input of a bf16 base into fp32 for the adapter: a third of a step's time."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if adapted.get_base_model().dtype != torch.bfloat16:
        return
    layers: list[Any] = [module for module in adapted.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.cast_input_dtype_enabled = False


def adapter_state(adapted: Any) -> State:
    """A copy of the adapter's weights on the CPU, under PEFT's names."""
    from peft import get_peft_model_state_dict

    found: Mapping[str, torch.Tensor] = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    return {name: value.detach().float().cpu().clone().contiguous() for name, value in found.items()}


def put_adapter_state(adapted: Any, state: State) -> None:
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(adapted, state)


def write_adapter(adapted: Any, state: State, folder: Path) -> None:
    """PEFT's two files. Raises OSError."""
    from safetensors.torch import save

    config = adapted.peft_config["default"]
    trained_so, config.inference_mode = config.inference_mode, True
    try:
        config.save_pretrained(str(folder))
    finally:
        config.inference_mode = trained_so
    write_bytes(folder / ADAPTER_WEIGHTS, save(state, metadata={"format": "pt"}))


def answer_nll(model: Any, batch: Batch) -> torch.Tensor:
    """Summed negative log-likelihood of each row's answer, in nats: (rows,), float32, with gradient."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    given: dict[str, Any] = {"input_ids": batch.ids, "use_cache": False}
    # The adapter is fp32; cast to the base's format, it does not slow down the matrix products.
    with torch.autocast(batch.ids.device.type, dtype=torch.bfloat16, enabled=causal.dtype == torch.bfloat16):
        if _keeps_logits(type(causal)):
            logits = causal(**given, logits_to_keep=batch.keep).logits
        else:
            logits = causal(**given).logits[:, batch.keep]
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses.view(batch.targets.shape).sum(dim=1)


def _keeps_logits(model: type) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters  # type: ignore[attr-defined]


@contextmanager
def evaluating(model: Any) -> Any:
    """Dropout off and no gradients within the block."""
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or the system had no memory left; torch says so on the CPU by a plain RuntimeError."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "out of memory" in text)
