"""Plain text: its first line is the title when it looks like one."""

from data_jobs.processors.parsed import Parsed

_LONGEST_TITLE = 100


def parse_text(text: str) -> Parsed:
    lines = text.strip().split("\n", 2)
    first = lines[0].strip()
    alone = len(lines) < 2 or not lines[1].strip() or set(lines[1].strip()) <= set("=-~*#")
    return Parsed(first if alone and len(first) <= _LONGEST_TITLE else "", text)
