"""What every page shows: who works here, where else to go, and what this is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from millie.review.roles import Act, acts_of
from millie.types import RESEARCH_USE_ONLY

_PAGES = (
    ("worklist", "Worklist", Act.LOOK),
    ("submit", "Submit", Act.SUBMIT),
    ("second_reviews", "Second reviews", Act.SECOND_REVIEW),
    ("quality", "Quality", Act.LOOK),
    ("audit", "Audit", Act.AUDIT),
    ("users", "Users", Act.MANAGE),
)


@dataclass(frozen=True, slots=True)
class Page:
    """An entry of the bar at the top."""

    href: str
    title: str
    current: bool


def every_page(request: HttpRequest) -> dict[str, Any]:
    """Context of every template."""
    user = getattr(request, "user", None)
    allowed = acts_of(user) if user is not None else frozenset()
    return {
        "allowed": {act.value for act in allowed},
        "pages": _pages(request.path, allowed),
        "research_use_only": RESEARCH_USE_ONLY,
    }


def _pages(path: str, allowed: frozenset[Act]) -> list[Page]:
    found = []
    for name, title, act in _PAGES:
        if act not in allowed:
            continue
        try:
            href = reverse(name)
        except NoReverseMatch:  # a page that is not there yet
            continue
        found.append(Page(href, title, path == href))
    return found
