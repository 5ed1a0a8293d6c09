"""Only the assistant's turn is learned, however rows are batched."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from assistant.errors import ConfigurationError, InvalidInput
from assistant.types import Message
from tests.training.tiny import row, rows
from training.encoding import IGNORED, STRIDE, collate, encode, encode_all, load_tokenizer, micro_batches
from training.lora_model import answer_nll, load_base
from training.rows import Row, read_rows, write_rows


def with_merge(base: Path, folder: Path, left: str, right: str) -> Path:
    """`base` with a tokenizer that writes `left` followed by `right` as one token."""
    shutil.copytree(base, folder)
    file = folder / "tokenizer.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    raw["model"]["vocab"][left + right] = len(raw["model"]["vocab"])
    raw["model"]["merges"] = [[left, right]]
    file.write_text(json.dumps(raw), encoding="utf-8")
    return folder


def test_labels_are_the_answer_and_its_end(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    found = encode(tokenizer, row("Why?", "Because."), 0, 100)
    assert found is not None
    assert tokenizer.decode(found.ids[found.start :]) == "Because.<|im_end|>"
    assert tokenizer.decode(found.ids[: found.start]).endswith("<|im_start|>assistant\n")
    batch = collate([found], 1, torch.device("cpu"))
    learned = batch.targets[0][batch.targets[0] != IGNORED]
    assert learned.tolist() == list(found.ids[found.start :])


def test_earlier_assistant_turns_are_not_learned(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    turns = ("user", "assistant", "user", "assistant")
    chat = Row(tuple(Message(r, f"{r} {i}") for i, r in enumerate(turns)), "example")  # type: ignore[arg-type]
    found = encode(tokenizer, chat, 0, 200)
    assert found is not None
    assert tokenizer.decode(found.ids[found.start :]) == "assistant 3<|im_end|>"


def test_a_long_answer_is_cut_and_a_long_prompt_left_out(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    cut = encode(tokenizer, row("Why?", "word " * 50), 0, 64)
    assert cut is not None
    assert len(cut.ids) == 64
    assert encode(tokenizer, row("why " * 30, "Because of it."), 0, 64) is None
    with pytest.raises(InvalidInput, match="None of the 1 training rows"):
        encode_all(tokenizer, [row("why " * 30, "Because.")], 64, "training")


def test_an_answer_may_begin_with_what_melts_into_the_prompts_end(tiny_base: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(with_merge(tiny_base, tmp_path / "merging", "Ċ", "Ċ"))
    assert len(tokenizer("\n\n")["input_ids"]) == 1
    found = encode(tokenizer, row("Why?", "\nBecause."), 0, 100)
    assert found is not None
    prompt = tokenizer.decode(found.ids[: found.start])
    assert prompt.endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(found.ids[found.start :]) == "\nBecause.<|im_end|>"


def test_a_template_that_rewrites_the_prompt_is_refused(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    tokenizer.chat_template = "{{ messages | length }}" + tokenizer.chat_template
    with pytest.raises(ConfigurationError, match="only appends"):
        encode(tokenizer, row("Why?", "Because."), 0, 100)


def test_padding_and_company_do_not_change_a_rows_loss(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    model = load_base(tiny_base, torch.device("cpu"), torch.float32)
    encoded = encode_all(tokenizer, rows(6), 96, "training")
    together = answer_nll(model, collate(encoded, 1, torch.device("cpu")))
    alone = [answer_nll(model, collate([e], 1, torch.device("cpu"))) for e in encoded]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)
    assert (together > 0).all()


def test_few_shapes_for_rows_of_many_lengths(tiny_base: Path) -> None:
    encoded = encode_all(load_tokenizer(tiny_base), rows(20), 96, "training")
    assert len({len(e.ids) for e in encoded}) > 4
    batches = [collate([e], 1, torch.device("cpu")) for e in encoded]
    assert {b.ids.shape[1] % STRIDE for b in batches} == {0}
    assert len({b.keep.shape for b in batches}) <= 2
    for batch, e in zip(batches, encoded, strict=True):
        assert (batch.targets != IGNORED).sum() == e.answer_tokens == batch.counts[0]
        assert batch.keep.tolist() == sorted(set(batch.keep.tolist()))


def test_the_loss_is_that_of_transformers(tiny_base: Path) -> None:
    tokenizer = load_tokenizer(tiny_base)
    model = load_base(tiny_base, torch.device("cpu"), torch.float32)
    found = encode(tokenizer, row("Why?", "Because."), 0, 100)
    assert found is not None
    labels = torch.tensor([[IGNORED] * found.start + list(found.ids[found.start :])])
    with torch.no_grad():
        reference = model(input_ids=torch.tensor([found.ids]), labels=labels).loss
        ours = answer_nll(model, collate([found], 1, torch.device("cpu"))) / found.answer_tokens
    torch.testing.assert_close(ours[0], reference)


def test_micro_batches_hold_every_row_once_within_the_budget(tiny_base: Path) -> None:
    encoded = encode_all(load_tokenizer(tiny_base), rows(20), 96, "training")
    groups = micro_batches(encoded, 300)
    assert any(len(g) > 1 for g in groups)
    assert sorted(r.row for g in groups for r in g) == list(range(20))
    assert all(len(g) == 1 or collate(g, 1, torch.device("cpu")).ids.numel() <= 300 for g in groups)
    assert all(len(g) == 1 for g in micro_batches(encoded, 1))


def test_rows_survive_their_file(tmp_path: Path) -> None:
    written = [row("Ä?", "Ö.", weight=0.5, document="a.md"), row("b", "c")]
    write_rows(tmp_path / "rows.jsonl", written)
    assert read_rows(tmp_path / "rows.jsonl") == written


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 1"),
        ('{"messages": [], "source": "x"}', "assistant turn"),
        ('{"messages": [{"role": "robot", "content": "x"}], "source": "x"}', "unknown role"),
        (
            '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}], "source": "x"}',
            "written assistant turn",
        ),
        ("[]", "line 1"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "rows.jsonl").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=reason):
        read_rows(tmp_path / "rows.jsonl")


def test_a_base_without_a_template_or_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"config\.json is missing"):
        load_tokenizer(tmp_path)
