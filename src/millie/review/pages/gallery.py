"""The gallery of a sample's cells: the page, its cells, and the decisions that its keys make."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import render
from django.views.decorators.http import require_GET, require_POST

from millie.errors import ConfigError
from millie.review.cell_kinds import KINDS
from millie.review.cells.blind import call_hidden
from millie.review.cells.decisions import ReplacedError, StaleError, Wish, decide
from millie.review.cells.differential import count_kinds
from millie.review.cells.listing import listing, state_of, title_of
from millie.review.pages.lookup import analysis_of, folder_of, person, sample_of, told_by
from millie.review.pictures.crops import open_bag
from millie.review.roles import Act, requires

if TYPE_CHECKING:
    from millie.review.models import Cell

_BAR_UM = (1, 2, 5, 10)


@requires(Act.LOOK)
def gallery(request: HttpRequest, pseudonym: str) -> HttpResponse:
    """The page; its cells come by :func:`cells`."""
    sample = sample_of(pseudonym)
    analysis = analysis_of(sample)
    meta = open_bag(folder_of(analysis)).meta
    return render(request, "review/gallery.html", {
        "sample": sample,
        "analysis": analysis,
        "kinds": KINDS,
        "kinds_json": [asdict(kind) for kind in KINDS],
        "call_hidden": call_hidden(person(request), sample),
        "crop_um": meta.size_um or None,
        "bar_um": _bar(meta.size_um) if meta.size_um else None,
        "differential": count_kinds(analysis),
    })  # fmt: skip


def _bar(across_um: float) -> int:
    """Length of the scale bar: a round number that fills at most half of a crop."""
    return max((um for um in _BAR_UM if um <= across_um / 2), default=_BAR_UM[0])


@requires(Act.LOOK)
@require_GET
def cells(request: HttpRequest, pseudonym: str) -> JsonResponse:
    """All cells, or with ``?image=N`` those of one image."""
    sample = sample_of(pseudonym)
    analysis = analysis_of(sample)
    image = request.GET.get("image", "")
    only = int(image) if image.isascii() and image.isdigit() and len(image) < 9 else None
    content = listing(analysis, *told_by(analysis), person(request), only)
    return JsonResponse(content, headers={"Cache-Control": "no-store"})


@requires(Act.LOOK)
def differential(request: HttpRequest, pseudonym: str) -> HttpResponse:
    """The count of confirmed kinds, as a part of a page."""
    analysis = analysis_of(sample_of(pseudonym))
    return render(request, "review/differential.html", {"differential": count_kinds(analysis)})


@requires(Act.DECIDE)
@require_POST
def decisions(request: HttpRequest, pseudonym: str) -> JsonResponse:
    """Keep decisions: ``{"analysis": 1, "decisions": [{"cell": 3, "seen": 0, "code": "blast"}]}``.

    409 tells where another person has decided since, and that nothing was kept.
    """
    sample = sample_of(pseudonym)
    try:
        number, wishes = _read(request.body)
        analysis = analysis_of(sample, number)
        kept = decide(analysis, wishes, person(request))
    except StaleError as error:
        answer: dict[str, Any] = {"conflicts": [_other(cell) for cell in error.cells]}
        return JsonResponse(answer, status=409)
    except ReplacedError:
        return JsonResponse({"replaced": True}, status=409)
    except ConfigError as error:
        return JsonResponse({"error": str(error)}, status=400)
    labels = analysis.model["labels"]
    return JsonResponse({"cells": [state_of(cell, labels) for cell in kept]})


def _read(body: bytes) -> tuple[str, list[Wish]]:
    try:
        content = json.loads(body)
        wishes = [
            Wish(int(entry["cell"]), int(entry["seen"]), str(entry["code"]))
            for entry in content["decisions"]
        ]
        return str(int(content["analysis"])), wishes
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "not understood: expected analysis and decisions, each with cell, seen and code"
        ) from error


def _other(cell: Cell) -> dict[str, Any]:
    """What another person decided, without the suggestion: the reader may work blind-first."""
    last = cell.decisions.select_related("user").last()
    return {
        **state_of(cell),
        "title": title_of(cell.decision),
        "user": last.user.get_username() if last else "",
        "at": f"{last.at:%H:%M} UTC" if last else "",
    }


@require_GET
def session(request: HttpRequest) -> JsonResponse:
    """Whether somebody is logged in, and the token that the next POST must carry.

    Raises:
        PermissionDenied: nobody is.
    """
    if not request.user.is_authenticated:
        raise PermissionDenied("not logged in")
    name = person(request).get_username()
    return JsonResponse({"user": name, "csrf": get_token(request)},
        headers={"Cache-Control": "no-store"})  # fmt: skip
