"""What retrieval is tuned on: texts, questions and what answers them, from a judged collection or from the
headings of a folder of documents. Never the split that results are reported on.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from assistant.clock import stable_id
from assistant.errors import InvalidInput
from assistant.retrieval.chunking import Chunker
from assistant.retrieval.embedders import TokenCounter
from assistant.settings import ChunkSettings
from assistant.types import Document
from evals.beir import load_beir
from evals.collection import SOURCE, Indexed, whole_document
from evals.documents import read_folder
from evals.splits import identity, split_of
from evals.text_metrics import words

MIN_WORDS = 40
PER_DOCUMENT = 3


@dataclass(frozen=True)
class Corpus:
    """`texts`: id → text; `judgements`: question id → text id → grade; `groups`: question id → document.

    Questions of one document are not independent: they are resampled together.
    """

    name: str
    texts: Mapping[str, str]
    queries: Mapping[str, str]
    judgements: Mapping[str, Mapping[str, int]]
    groups: Mapping[str, str]
    data_hash: str


def judged(folder: Path, split: str = "train") -> Corpus:
    """A collection in BEIR's form. InvalidInput names what is wrong, or refuses the test split."""
    if split == "test":
        raise InvalidInput("The test split is for reporting.", hint="Tune on train or dev.", field="--split")
    found = load_beir(folder, split)
    groups = {query: query for query in found.queries}
    return Corpus(
        f"{found.name}/{split}", found.documents, found.queries, found.judgements, groups, found.data_hash
    )


def from_documents(folders: Sequence[Path]) -> Corpus:
    """Title and heading → that section, for documents of the dev split; the texts are sections of all.

    The index holds the bodies without headings, and questions whose words all stand in the body are left out:
    otherwise words alone would find them. Such questions are derived, not asked by people. InvalidInput when a
    folder is absent or none is left.
    """
    texts: dict[str, str] = {}
    queries: dict[str, str] = {}
    groups: dict[str, str] = {}
    seen: set[str] = set()
    for folder in folders:
        for document in read_folder(folder):
            asked: Counter[str] = Counter()
            name = identity(document.path)
            for number, section in enumerate(s for s in document.sections if s.level == 2):
                given = words(section.text)
                key = " ".join(given)
                if len(given) < MIN_WORDS or key in seen:
                    continue
                seen.add(key)
                id_ = f"{folder.name}/{name}#{number}"
                texts[id_] = section.text
                query = f"{document.title}: {section.title}"
                if split_of(document.path) != "dev" or set(words(query)) <= set(given):
                    continue
                if asked[name] < PER_DOCUMENT:
                    asked[name] += 1
                    queries[id_], groups[id_] = query, name
    if not queries:
        raise InvalidInput(
            f"{', '.join(map(str, folders))}: no document of the dev split has a section to ask for.",
            hint="Name folders with more documents.",
            field="--documents",
        )
    digest = hashlib.sha256()
    for id_ in sorted(texts):
        digest.update(f"{id_}\n{queries.get(id_, '')}\n{texts[id_]}\n".encode())
    judgements = {query: {query: 1} for query in queries}
    name = "+".join(folder.name for folder in folders)
    return Corpus(f"{name}/dev headings", texts, queries, judgements, groups, digest.hexdigest())


def indexed(corpus: Corpus, chunk: ChunkSettings | None, tokenizer: TokenCounter) -> list[Indexed]:
    """The corpus as chunks of at most `chunk.max_tokens`; None keeps every text whole."""
    if chunk is None:
        return [whole_document(id_, text) for id_, text in corpus.texts.items()]
    chunker = Chunker(chunk, tokenizer)
    found = []
    for id_, text in corpus.texts.items():
        content_hash = hashlib.sha256(text.encode()).hexdigest()
        document = Document(
            id=stable_id(SOURCE, id_),
            source_id=stable_id(SOURCE),
            external_id=id_,
            title="",
            text=text,
            content_hash=content_hash,
            content_type="text/markdown",
        )
        found += [Indexed(id_, "", content_hash, part, part.text) for part in chunker.split(document)]
    return found
