"""From a template to one self-contained HTML page.

Owns escaping, the content security policy and the wording of numbers. Every value is escaped; a
page loads nothing from anywhere and runs no script.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from millie.files import spelt_out
from millie.statistics.conformal import in_words
from millie.types import RESEARCH_USE_ONLY

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)


def render(template: str, **context: Any) -> str:
    """Fill a template of this package.

    Args:
        template: file name in ``outputs/templates``.
        context: values; text is escaped whatever it holds.
    """
    return _environment().get_template(template).render(**context)


@cache
def _environment() -> Environment:
    folder = resources.files("millie.outputs") / "templates"
    style = (folder / "style.css").read_text(encoding="utf-8")
    environment = Environment(
        loader=PackageLoader("millie.outputs"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=visible,
    )
    environment.filters.update(
        probability=in_words, percent=percent, decimal=decimal, count=count, moment=moment
    )
    environment.globals.update(
        style=Markup(style),  # noqa: S704 - the package's own file, nothing from outside
        policy=POLICY,
        research_use_only=RESEARCH_USE_ONLY,
    )
    return environment


def visible(value: Any) -> Any:
    """Replace characters that cannot be seen, or that turn the direction of text, by a sign.

    Bytes of a name that are not UTF-8 are spelt out as in tables.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = spelt_out(value)
    if text.isprintable():  # embedded pictures are long strings: skip the loop
        return text
    return "".join(
        c if c.isprintable() or c in "\n\u00a0" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def percent(value: float) -> str:
    """A share as a whole percentage: 12%, <1%."""
    if 0 < value < 0.01:
        return "<1%"
    return f"{100 * value:.0f}%"


def decimal(value: float | None, places: int = 2) -> str:
    """A number with fixed places; a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{places}f}"


def count(value: int, noun: str, plural: str = "") -> str:
    """A number and its noun: 1 cell, 1,204 cells."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def moment(text: str) -> str:
    """An ISO 8601 time for people, in UTC to the minute; any other text as it is."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    if when.tzinfo is None:
        return f"{when:%Y-%m-%d %H:%M}"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
