"""What kind of section answers a question: "what should I do" wants the mitigation, not the meaning."""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intent:
    """`asked` recognises the question, `headings` the sections that answer it."""

    name: str
    asked: re.Pattern[str]
    headings: re.Pattern[str]


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{words})", re.IGNORECASE)


INTENTS = (
    Intent(
        "action",
        _pattern(
            r"what (?:should|can|do|must|shall) (?:i|we|one|you)\b|what to do|how (?:do|can|should|to|would)\b"
            r"|fix|resolve|mitigat|remed|recover|handle|respond|get rid|steps|что делать|как "
        ),
        _pattern(
            r"mitigat|resol|remed|fix|solution|what to do|steps|procedure|how to|how do|recover|workaround"
            r"|action|respon|usage|instruction|getting started|решение|что делать|устранение"
        ),
    ),
    Intent(
        "cause",
        _pattern(r"why\b|cause|diagnos|investigat|debug|find out|troubleshoot|почему|причин"),
        _pattern(r"diagnos|cause|debug|investigat|troubleshoot|why\b|диагностика|причин"),
    ),
    Intent(
        "impact",
        _pattern(r"impact|what happens|consequence|severity|how (?:bad|serious)|последстви"),
        _pattern(r"impact|consequence|severity|effect|последстви"),
    ),
    Intent(
        "meaning",
        _pattern(r"what (?:is|are|does)\b|mean(?:ing)?\b|define|definition|explain|что такое|что значит"),
        _pattern(r"meaning|overview|introduction|summary|what is|definition|abstract|purpose|обзор|описание"),
    ),
)


def intent_of(question: str) -> Intent | None:
    """The first intent, most specific first, whose words the question uses."""
    return next((i for i in INTENTS if i.asked.search(question)), None)
