"""Filters that write numbers, times and states as the other pages of millie do."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django import template

from millie.outputs.page import count, decimal, percent, visible
from millie.outputs.patient.states import words_for
from millie.review.cell_kinds import BY_CODE
from millie.statistics.conformal import in_words

register = template.Library()
register.filter("visible", visible)
register.filter("percent", percent)
register.filter("decimal", decimal)
register.filter("counted", count)
register.filter("probability", in_words)


@register.filter
def moment(when: datetime | None) -> str:
    """A time for people, in UTC to the minute; a dash where there is none."""
    return f"{when:%Y-%m-%d %H:%M} UTC" if when else "–"


@register.inclusion_tag("review/state.html")
def state(code: str) -> dict[str, Any]:
    """A state of an analysis: icon and words, as in the reports."""
    return {"words": words_for(code)}


@register.filter
def age(since: datetime, now: datetime) -> str:
    """How long something waits, in the two largest units."""
    minutes = max(0, int((now - since).total_seconds() // 60))
    hours, days = minutes // 60, minutes // 1440
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


@register.filter
def kind(code: str) -> str:
    """A kind of cell in words."""
    return BY_CODE[code].title if code in BY_CODE else code
