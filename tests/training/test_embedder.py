"""Teaching a tiny embedder, and the pairs it learns from."""

import json
from pathlib import Path

import pytest

from assistant.errors import ConfigurationError, InvalidInput
from assistant.retrieval.embedders import SentenceTransformerEmbedder, installed_embedder
from assistant.settings import Settings
from evals.splits import split_of
from training.embedder import EmbedderJob, train_embedder
from training.pairs import Pair, pairs_from_documents, pairs_from_feedback, parted, read_pairs

TOPICS = ["cache", "queue", "index", "router", "ledger", "kernel", "socket", "parser", "mutex", "schema"]


@pytest.fixture(scope="module")
def tiny_embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of one layer whose words are those of the test's pairs."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("embedder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TOPICS, *(f"{t}word" for t in TOPICS), "about", "tell"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder / "bert")
    BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
    ).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"), max_seq_length=32)
    model = SentenceTransformer(modules=[transformer, Pooling(32), Normalize()], device="cpu")
    model.save(str(folder / "base"), create_model_card=False)
    return folder / "base"


def pairs() -> list[Pair]:
    """Questions name a topic, passages use another word for it: only learning brings them together."""
    return [
        Pair(f"tell about {topic}" if i % 2 else topic, f"{topic}word " * (2 + i % 3), f"doc{i}.md")
        for i in range(60)
        for topic in (TOPICS[i % 10], TOPICS[(i // 10 + i) % 10])
    ]


def test_an_embedder_learns_what_belongs_together_and_is_found_by_its_name(
    tiny_embedder: Path, tmp_path: Path
) -> None:
    job = EmbedderJob(
        tiny_embedder,
        "taught",
        tmp_path / "models",
        epochs=8,
        learning_rate=5e-3,
        batch_size=8,
        max_tokens=32,
    )
    held = parted(pairs())[1]
    result = train_embedder(job, pairs())
    assert result.held_out == len(held)
    assert result.mrr_after > result.mrr_before + 0.2
    assert result.verdict == "better"
    card = json.loads((result.folder / "training.json").read_text())
    assert card["recall_after"] == result.recall_after
    assert len(card["data_hash"]) == 64
    settings = Settings(home=tmp_path)
    found = installed_embedder(settings, "taught")
    assert (found.dimension, found.path) == (32, result.folder)
    vectors = SentenceTransformerEmbedder(found, result.folder).embed(["cache", "cacheword", "mutexword"])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["taught"]


def test_pairs_come_from_headings_and_not_from_shared_words(tmp_path: Path) -> None:
    body = " ".join(f"w{i}" for i in range(50))
    (tmp_path / "a.md").write_text(
        f"# Alpha\n\n## Why so\n\n{body}\n\n## Covered\n\nalpha covered {body} more\n\n## Short\n\nfew words\n"
    )
    (tmp_path / "b.md").write_text(f"# Beta\n\n## Copy\n\n{body}\n")
    found = pairs_from_documents([tmp_path])
    assert [(p.query, p.document) for p in found if "Alpha: Why" in p.query] == [("Alpha: Why so", "a.md")]
    assert not any("Covered" in p.query or "Short" in p.query or "Copy" in p.query for p in found)


def test_no_document_is_on_both_sides() -> None:
    learned, held = parted(pairs())
    assert not {p.document for p in learned} & {p.document for p in held}
    assert all(split_of(p.document) == "train" for p in learned)
    with pytest.raises(InvalidInput, match="to measure with"):
        parted(learned)
    with pytest.raises(InvalidInput, match="to learn from"):
        parted(held)


def test_feedback_pairs_are_cleaned() -> None:
    rated = [(" q ", "text", "d"), ("q", "text ", "d"), ("", "text", "d"), ("q", "", "d")]
    assert pairs_from_feedback(rated) == [Pair("q", "text", "d")]


def test_a_broken_pair_and_a_folder_without_a_model_are_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text('{"query": "a", "passage": "b", "document": "c"}\n{"query": 1}\n')
    with pytest.raises(InvalidInput, match="line 2"):
        read_pairs(tmp_path / "pairs.jsonl")
    (tmp_path / "mine").mkdir()
    with pytest.raises(InvalidInput, match="is there already"):
        train_embedder(EmbedderJob(tmp_path, "mine", tmp_path), pairs())
    with pytest.raises(ConfigurationError, match=r"modules\.json is missing"):
        train_embedder(EmbedderJob(tmp_path, "x", tmp_path), pairs())
