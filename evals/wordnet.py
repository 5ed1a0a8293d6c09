"""WordNet without a download: METEOR needs its synonyms, and NLTK wants them as a folder of its own making.

NLTK's own data are taken where they are installed. Otherwise the folder is built once from the files that
Debian and Ubuntu ship (`apt install wordnet-base wordnet-sense-index`, WordNet 3.0): all that NLTK opens but
`lexnames`, the numbered list of lexicographer files, which that package documents and does not contain.
"""

import os
import shutil
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from assistant.errors import ConfigurationError

SYSTEM = Path("/usr/share/wordnet")
FILES = (
    "cntlist.rev",
    "index.sense",
    *(f"{kind}.{part}" for kind in ("index", "data") for part in ("adj", "adv", "noun", "verb")),
    *(f"{part}.exc" for part in ("adj", "adv", "noun", "verb")),
)
HOW = "Install it: `apt install wordnet-base wordnet-sense-index`, or NLTK's corpus `wordnet`."

_PARTS = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}
_NOUNS = (
    "Tops act animal artifact attribute body cognition communication event feeling food group location motive "
    "object person phenomenon plant possession process quantity relation shape state substance time"
)
_VERBS = (
    "body change cognition communication competition consumption contact creation emotion motion perception "
    "possession social stative weather"
)
_LEXNAMES = (
    *("adj.all", "adj.pert", "adv.all"),
    *(f"noun.{topic}" for topic in _NOUNS.split()),
    *(f"verb.{topic}" for topic in _VERBS.split()),
    "adj.ppl",
)


def find(home: Path, system: Path = SYSTEM) -> Path | None:
    """The corpus folder: NLTK's own, the one below `home`, or one built there now; None without any data."""
    import nltk  # type: ignore[import-untyped]

    try:
        installed = Path(str(nltk.data.find("corpora/wordnet")))
        if installed.is_dir():
            return installed
    except LookupError:
        pass
    built = home / "evals" / "nltk_data" / "corpora" / "wordnet"
    if (built / "lexnames").is_file():
        return built
    if all((system / name).is_file() for name in FILES):
        build(system, built)
        return built
    return None


def build(source: Path, folder: Path) -> None:
    """Make NLTK's corpus folder from the files of a WordNet 3.0 in `source`, whole or not at all.

    Raises ConfigurationError naming the missing files, or when the folder cannot be written.
    """
    missing = [name for name in FILES if not (source / name).is_file()]
    if missing:
        raise ConfigurationError(f"{source} lacks {', '.join(missing)} of WordNet.", hint=HOW)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".wordnet-") as scratch:
            made = Path(scratch, "wordnet")
            made.mkdir()
            for name in FILES:
                shutil.copyfile(source / name, made / name)
            (made / "lexnames").write_text(lexnames(), encoding="ascii")
            try:
                os.rename(made, folder)
            except OSError:
                if not (folder / "lexnames").is_file():
                    raise
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be written: {error.strerror}.") from None


def lexnames() -> str:
    """The 45 lines `number, name, part of speech` of the manual page lexnames(5WN)."""
    return "".join(
        f"{number:02}\t{name}\t{_PARTS[name.partition('.')[0]]}\n" for number, name in enumerate(_LEXNAMES)
    )


@lru_cache(maxsize=1)
def load(folder: Path) -> Any:
    """NLTK's reader of a corpus folder. Raises ConfigurationError when it is damaged."""
    import nltk  # type: ignore[import-untyped]
    from nltk.corpus.reader.wordnet import WordNetCorpusReader  # type: ignore[import-untyped]

    # NLTK reads nothing outside the data folders it knows.
    data = str(folder.parent.parent)
    if added := data not in nltk.data.path:
        nltk.data.path.append(data)
    try:
        with warnings.catch_warnings():
            # Other languages come with another corpus, which is not wanted here.
            warnings.simplefilter("ignore")
            return WordNetCorpusReader(str(folder), None)
    except (OSError, ValueError, AssertionError, StopIteration) as error:
        if added:
            nltk.data.path.remove(data)
        raise ConfigurationError(
            f"The WordNet in {folder} cannot be read: {error or 'it is damaged'}.", hint=f"Remove it. {HOW}"
        ) from None
