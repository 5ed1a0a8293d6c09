"""General rows against forgetting: everyday questions, answered by the base model itself.

A model that learns a few hundred texts forgets the rest at once. Half of these rows are mixed into the
training data, the other half is the guard set on which a candidate must not be worse. The answers are made
once per base, greedily, and kept.
"""

import json
import os
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from assistant.types import Message
from training.count import Count, uncounted
from training.encoding import load_tokenizer, pad_id
from training.folders import write_bytes, writing
from training.lora_model import choose_device, choose_dtype, load_base
from training.rows import Row, chat, read_rows

SOURCE = "general"
MAX_NEW_TOKENS = 64
WHOLE = re.compile(r".*[.!?](?=\s|$)", re.DOTALL)
BATCH = 16


def prompts() -> list[str]:
    text = files("training").joinpath("data/general_prompts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["prompt"] for line in text.splitlines()]


def general_rows(
    base: Path,
    fingerprint: str,
    cache: Path,
    *,
    questions: Sequence[str] | None = None,
    threads: int = 1,
    device: str = "auto",
    counted: Count = uncounted,
) -> list[Row]:
    """One row per question, in their order. Answers that are not in `cache` yet are generated, batch by batch:
    an interrupted call goes on where it was.

    `base` is a transformers folder and `fingerprint` says which base it is: another base answers anew.
    Raises ConfigurationError when the base cannot be loaded or the cache not be written.
    """
    wanted = list(questions if questions is not None else prompts())
    file = cache / f"general-{fingerprint[:16]}.jsonl"
    known = {row.messages[0].content: row for row in _cached(file)}
    missing = [question for question in wanted if question not in known]
    if missing:
        answer = _Answers(base, threads, device)
        for first in range(0, len(missing), BATCH):
            some = missing[first : first + BATCH]
            for question, text in zip(some, answer(some), strict=True):
                known[question] = Row((Message("user", question), Message("assistant", text)), SOURCE)
            _keep(file, list(known.values()))
            counted(len(wanted) - len(missing) + first + len(some), len(wanted))
    return [known[question] for question in wanted]


def parted(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """(to learn from, guard): every second row each, so that both cover the same ground."""
    return list(rows[::2]), list(rows[1::2])


class _Answers:
    """The base's greedy answers, several at a time."""

    def __init__(self, base: Path, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        self._tokenizer = load_tokenizer(base)
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._device = choose_device(device)
        self._model: Any = load_base(base, self._device, choose_dtype(self._device))
        self._model.config.use_cache = True

    def __call__(self, questions: Sequence[str]) -> list[str]:
        texts = [
            self._tokenizer.apply_chat_template(
                chat([Message("user", question)]), tokenize=False, add_generation_prompt=True
            )
            for question in questions
        ]
        given = self._tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.no_grad():
            ids = self._model.generate(
                input_ids=given["input_ids"].to(self._device),
                attention_mask=given["attention_mask"].to(self._device),
                do_sample=False,
                max_new_tokens=MAX_NEW_TOKENS,
                pad_token_id=pad_id(self._tokenizer),
                eos_token_id=self._tokenizer.eos_token_id,
            )
        answers = ids[:, given["input_ids"].shape[1] :]
        return [self._text(answer.tolist()) for answer in answers]

    def _text(self, ids: list[int]) -> str:
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()
        if self._tokenizer.eos_token_id not in ids and (whole := WHOLE.match(text)):
            # Cut short by the limit: half a sentence must not be learned as an end.
            text = whole[0]
        # A base that says nothing keeps its row: the guard set must not change from run to run.
        return text or "..."


def _cached(file: Path) -> list[Row]:
    return read_rows(file) if file.is_file() else []


def _keep(file: Path, rows: Sequence[Row]) -> None:
    lines = "".join(json.dumps(row.as_json(), ensure_ascii=False) + "\n" for row in rows)
    partial = file.with_name(f".{file.name}.partial")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(partial, lines.encode())
        os.replace(partial, file)
