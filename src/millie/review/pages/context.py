"""What every page shows: who works here, and what this is not."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from millie.review.roles import Act, may
from millie.types import RESEARCH_USE_ONLY


def every_page(request: HttpRequest) -> dict[str, Any]:
    """Context of every template."""
    user = getattr(request, "user", None)
    allowed = {act.value for act in Act if user is not None and may(user, act)}
    return {"allowed": allowed, "research_use_only": RESEARCH_USE_ONLY}
