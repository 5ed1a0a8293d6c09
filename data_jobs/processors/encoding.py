"""Bytes to text: encoding found, line ends and control characters made regular."""

import codecs
import re

from charset_normalizer import from_bytes

from data_jobs.processors.parsed import Unreadable

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 100_000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def decode(data: bytes) -> str:
    """The text of a file. Raises Unreadable for binary data and encodings that cannot be told."""
    for bom, name in _BOMS:
        if data.startswith(bom):
            return _regular(_decoded(data, name))
    if b"\x00" in data[:_SAMPLE_BYTES]:
        raise Unreadable("It is a binary file (it holds NUL bytes).")
    try:
        return _regular(data.decode("utf-8"))
    except UnicodeDecodeError:
        pass
    guess = from_bytes(data[:_SAMPLE_BYTES]).best()
    if guess is None:
        raise Unreadable("It is a binary file, or its encoding cannot be told. Save it as UTF-8.")
    return _regular(_decoded(data, guess.encoding))


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode(name)
    except UnicodeDecodeError as error:
        raise Unreadable(f"It looks like {name}, but byte {error.start} is not. Save it as UTF-8.") from None


def _regular(text: str) -> str:
    if len(controls := _CONTROL.findall(text[:_SAMPLE_BYTES])) > len(text[:_SAMPLE_BYTES]) // 20 + 2:
        raise Unreadable(f"It is a binary file ({len(controls)} control characters in its beginning).")
    return _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
