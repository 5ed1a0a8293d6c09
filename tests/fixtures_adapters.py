"""Shared fixtures: a base model and adapters small enough to be made in seconds. Weights are random, files real."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from safetensors.numpy import save_file

from assistant.llm.adapter_gguf import interleaved, write_gguf
from assistant.llm.adapters import (
    GGUF,
    PEFT_CONFIG,
    PEFT_WEIGHTS,
    Adapter,
    base_fingerprint,
    read_adapter,
    write_card,
)
from cluster import weights

TINY: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "dtype": "float32",
}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def make_tiny_model(smollm: Path, folder: Path, seed: int = 0) -> Path:
    """A llama of 2 layers with the vocabulary of the built-in model: `folder/hf` and `folder/tiny.gguf`.

    `smollm` is the folder of the built-in model, with both its forms. Returns `folder`.
    """
    hf = folder / "hf"
    hf.mkdir(parents=True)
    config = json.loads((smollm / "hf" / "config.json").read_text()) | TINY
    (hf / "config.json").write_text(json.dumps(config))
    for name in TOKENIZER:
        if (smollm / "hf" / name).exists():
            shutil.copy(smollm / "hf" / name, hf / name)
    rng = np.random.default_rng(seed)
    tensors = {"model.embed_tokens.weight": _noise(rng, config["vocab_size"], config["hidden_size"], 0.3)}
    tensors["model.norm.weight"] = np.ones(config["hidden_size"], dtype=np.float32)
    for layer in range(config["num_hidden_layers"]):
        for name, (rows, columns) in _shapes(config).items():
            tensors[f"model.layers.{layer}.{name}.weight"] = _noise(rng, rows, columns, 0.3)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{layer}.{norm}.weight"] = np.ones(config["hidden_size"], dtype=np.float32)
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
    _write_base_gguf(next(smollm.glob("*.gguf")), config, tensors, folder / "tiny.gguf")
    return folder


def make_adapter(
    hf: Path,
    folder: Path,
    base_model: str,
    seed: int,
    rank: int = 4,
    strength: float = 0.1,
    layers: Sequence[str] = LINEAR,
) -> Path:
    """A finished adapter with random weights, both sides non-zero, for these layers of the base in `hf`."""
    config = json.loads((hf / "config.json").read_text())
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    tensors: dict[str, Any] = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (rows, columns) in _shapes(config).items():
            if name.rpartition(".")[2] not in layers:
                continue
            stem = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{stem}.lora_A.weight"] = _noise(rng, rank, columns, columns**-0.5)
            tensors[f"{stem}.lora_B.weight"] = _noise(rng, rows, rank, strength)
    save_file(tensors, folder / PEFT_WEIGHTS, metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(layers),
    }
    (folder / PEFT_CONFIG).write_text(json.dumps(settings))
    write_gguf(folder, hf, folder / GGUF)
    write_card(
        folder, base_model=base_model, base_fingerprint=base_fingerprint(hf), rank=rank, alpha=2 * rank
    )
    return folder


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    return {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }


def _noise(rng: np.random.Generator, rows: int, columns: int, scale: float) -> Any:
    return (rng.standard_normal((rows, columns)) * scale).astype(np.float32)


def _write_base_gguf(like: Path, config: dict[str, Any], tensors: dict[str, Any], out: Path) -> None:
    """The weights as GGUF, with the tokenizer and template of `like`."""
    writer = GGUFWriter(out, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    for field in GGUFReader(like).fields.values():
        if field.name.startswith("tokenizer."):
            kind = field.types[0]
            part = field.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, part)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, tensor in tensors.items():
        if name.startswith("model.layers."):
            _, _, layer, rest = name.split(".", 3)
            short = GGUF_NAMES[rest.removesuffix(".weight")]
            ordered = interleaved(tensor, heads[short]) if short in heads else tensor
            writer.add_tensor(f"blk.{layer}.{short}.weight", np.ascontiguousarray(ordered))
        else:
            short = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}[name[:-7]]
            writer.add_tensor(f"{short}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@dataclass(frozen=True)
class TinyLlama:
    """`folder` holds `hf` and `tiny.gguf`, `adapters` three adapters for the model called `subject`."""

    folder: Path
    adapters: dict[str, Adapter]

    @property
    def hf(self) -> Path:
        return self.folder / "hf"

    @property
    def gguf(self) -> Path:
        return self.folder / "tiny.gguf"


@pytest.fixture(scope="session")
def smollm(models_dir: Path) -> Path:
    """The folder of the built-in model, with its GGUF and its transformers form."""
    weights.ensure_hf(models_dir)
    return models_dir / "smollm2-135m-instruct"


@pytest.fixture(scope="session")
def tiny_llama(smollm: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    folder = make_tiny_model(smollm, tmp_path_factory.mktemp("tiny") / "tiny")
    made = [make_adapter(folder / "hf", folder / f"answerer-{n}", "subject", n) for n in (1, 2, 3)]
    return TinyLlama(folder, {path.name: read_adapter(path, "subject") for path in made})
