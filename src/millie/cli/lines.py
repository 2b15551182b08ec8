"""Text as lines of a terminal: nothing but printable characters, wrapped at words.

Knows no content and prints nothing.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

STEP = "    "
"""One step of indentation."""


@dataclass(frozen=True, slots=True)
class Line:
    """Text indented by ``depth`` steps; ``whole`` is never wrapped, so that paths can be copied."""

    text: str
    depth: int
    whole: bool = False


def printable(text: str) -> str:
    """A text with control characters spelt out: a file's name must not steer the terminal."""
    return "".join(c if c.isprintable() else _spelt(c) for c in text)


def _spelt(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def wrapped(line: Line, width: int) -> list[str]:
    """The line as it is printed, in at most ``width`` columns where its words allow it."""
    indent = STEP * line.depth
    result = []
    for part in map(printable, line.text.split("\n")):
        if line.whole or len(indent + part) <= width:
            result.append(indent + part)
            continue
        result += textwrap.wrap(
            part, max(width, len(indent) + 20), initial_indent=indent, subsequent_indent=indent,
            break_long_words=False, break_on_hyphens=False, replace_whitespace=False,
        )  # fmt: skip
    return result
