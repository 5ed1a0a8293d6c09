"""A random Llama of two layers with a byte tokenizer and a chat template: real parts, milliseconds."""

from collections.abc import Sequence
from pathlib import Path

import torch

from assistant.settings import TrainingSettings
from assistant.types import Message
from training.rows import Row

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUICK = TrainingSettings(
    rank=4,
    alpha=8,
    learning_rate=1e-2,
    max_tokens=96,
    epochs=2,
    min_steps=0,
    rows_per_step=4,
    batch_tokens=256,
    checkpoint_steps=2,
    validations_per_epoch=2,
    threads=1,
    precision="fp32",
)


def make_base(folder: Path, layers: int = 2) -> Path:
    """A transformers folder of some 40,000 parameters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {name: i for i, name in enumerate(["<|im_start|>", "<|im_end|>", *sorted(letters)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        chat_template=TEMPLATE,
    )
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return folder


def row(question: str, answer: str, source: str = "example", weight: float = 1.0, document: str = "") -> Row:
    return Row((Message("user", question), Message("assistant", answer)), source, weight, document)


def rows(count: int, first: int = 0) -> list[Row]:
    """Questions with one kind of answer, of various lengths."""
    return [
        row(f"Say {'ab' * (i % 5)}?", f"It is {'la' * (1 + i % 7)}.") for i in range(first, first + count)
    ]


def losses(steps: Sequence[object]) -> list[float]:
    return [step.loss for step in steps]  # type: ignore[attr-defined]
