"""What every processor returns, and the error that skips one document."""

from dataclasses import dataclass


class Unreadable(Exception):
    """This document cannot be read: the message says why. The run goes on with the next one."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """`text` is Markdown, or plain text from the text processor; `title` may be empty."""

    title: str
    text: str
