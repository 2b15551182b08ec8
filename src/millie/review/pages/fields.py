"""The field viewer: an image or a whole slide, with its cells."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.db.models import Max, Min
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import reverse

from millie.errors import DataError, MissingFileError
from millie.review.cell_kinds import KINDS
from millie.review.cells.blind import is_blind
from millie.review.pages.lookup import analysis_of, data, folder_of, person, sample_of
from millie.review.pictures.scene import scene_of
from millie.review.roles import Act, requires

if TYPE_CHECKING:
    from millie.review.models import Analysis


def _neighbours(analysis: Analysis, position: int) -> dict[str, int | None]:
    """The images with cells before and after one: where the next cell is, once all are seen."""
    cells = analysis.cells.order_by()
    return {
        "previous": cells.filter(image__lt=position).aggregate(at=Max("image"))["at"],
        "next": cells.filter(image__gt=position).aggregate(at=Min("image"))["at"],
    }


@requires(Act.LOOK)
def field(request: HttpRequest, pseudonym: str, position: int) -> HttpResponse:
    """The page of one image; a place ``?cell=N`` is shown first."""
    sample = sample_of(pseudonym)
    image = get_object_or_404(sample.images, position=position)
    analysis = analysis_of(sample)
    context: dict[str, Any] = {
        "sample": sample,
        "analysis": analysis,
        "image": image,
        "images": sample.images.all(),
        "here": f"Image {image.position}",
        "kinds": KINDS,
        "kinds_json": [asdict(kind) for kind in KINDS],
        "blind": is_blind(person(request)),
        **_neighbours(analysis, image.position),
    }
    try:
        scene = scene_of(folder_of(analysis), image.name, data().image(image.sha256))
    except FileNotFoundError:
        context["problem"] = "The analysis did not use this image."
    except (DataError, MissingFileError) as error:
        context["problem"] = str(error)
    else:
        tiles = reverse("tile", args=(pseudonym, position, 0, 0, 0)).removesuffix("0/0_0.jpg")
        context["scene"] = asdict(scene) | {"tiles": tiles, "position": position}
    return render(request, "review/field.html", context)
