"""A PEFT LoRA adapter as the GGUF file that llama.cpp loads beside its base model.

llama.cpp stores the query and key projections of the llama family with the two halves of each rotary pair
interleaved. The adapter's output side (B) has to follow them; its input side (A) stays as it is.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from assistant.errors import ConfigurationError
from assistant.llm.adapters import PEFT_CONFIG, PEFT_WEIGHTS

Array = npt.NDArray[np.float32]

ARCHITECTURES = {"llama": "llama"}
"""`model_type` of transformers → llama.cpp's name. Other families store their heads differently."""

KEY = re.compile(r"^base_model\.model\.(?P<module>model\.layers\.\d+\..+)\.lora_(?P<side>[AB])\.weight$")
PLAIN: Mapping[str, Any] = {
    "use_dora": False,
    "modules_to_save": None,
    "alpha_pattern": {},
    "rank_pattern": {},
    "bias": "none",
}
"""Settings of PEFT under which an adapter is nothing but B·A per layer, one scale for all."""


def write_gguf(peft_folder: Path, base_hf: Path, out: Path) -> None:
    """Write the adapter in `peft_folder`, trained on the model in `base_hf`, to `out`.

    `out` appears only when it is whole. Raises ConfigurationError for a base that is not of the llama
    family, and for an adapter with parts that GGUF adapters cannot hold (DoRA, biases, other modules).
    """
    import gguf

    config, base = _read_json(peft_folder / PEFT_CONFIG), _read_json(base_hf / "config.json")
    architecture = ARCHITECTURES.get(base.get("model_type", ""))
    if architecture is None:
        raise ConfigurationError(
            f"Adapters of {base.get('model_type')!r} models cannot be written for llama.cpp.",
            hint="Serve it with vLLM.",
        )
    for setting, plain in PLAIN.items():
        if config.get(setting) not in (plain, None):
            raise ConfigurationError(
                f"{peft_folder / PEFT_CONFIG}: {setting} is {config[setting]!r}, which llama.cpp's adapters cannot "
                "hold.",
                hint="Train a plain LoRA, or serve it with vLLM.",
            )
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, base["num_hidden_layers"])
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    writer = gguf.GGUFWriter(partial, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, _alpha(config))
    for key, weights in sorted(_weights(peft_folder / PEFT_WEIGHTS).items()):
        found = KEY.match(key)
        name = found and names.get_name(found["module"])
        if found is None or name is None:
            raise ConfigurationError(
                f"{peft_folder / PEFT_WEIGHTS}: {key} is not the LoRA of a layer that llama.cpp knows.",
                hint="Train on the linear layers only.",
            )
        if found["side"] == "B":
            weights = _output_side(found["module"], weights, base)
        writer.add_tensor(f"{name}.weight.lora_{found['side'].lower()}", np.ascontiguousarray(weights))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(partial, out)
    finally:
        partial.unlink(missing_ok=True)


def interleaved(weights: Array, heads: int) -> Array:
    """Rows of a projection in llama.cpp's order: (first, second) half of each head → pairs.

    Shape (heads x size, n) in and out.
    """
    rows = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return rows.swapaxes(1, 2).reshape(weights.shape)


def _output_side(module: str, weights: Array, base: Mapping[str, Any]) -> Array:
    heads = base["num_attention_heads"]
    if module.endswith("q_proj"):
        return interleaved(weights, heads)
    if module.endswith("k_proj"):
        return interleaved(weights, base.get("num_key_value_heads") or heads)
    return weights


def _alpha(config: Mapping[str, Any]) -> float:
    """llama.cpp scales by alpha / rank; rank-stabilised adapters by alpha / sqrt(rank)."""
    alpha, rank = float(config["lora_alpha"]), int(config["r"])
    return alpha * rank**0.5 if config.get("use_rslora") else alpha


def _weights(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        # Through torch, because numpy has no bfloat16.
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.", hint="Restore the adapter.") from None
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}.") from None
    return dict(read)
