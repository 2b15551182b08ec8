from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from PIL import Image

if TYPE_CHECKING:
    from django.test import Client

    from millie.review.models import Sample


def test_the_viewer_knows_the_size_and_scale_of_the_image(reviewer: Client, shown: Sample) -> None:
    scene = reviewer.get("/samples/S-drawn/fields/2").context["scene"]
    with Image.open(settings.DATA.image(shown.images.get(position=2).sha256)) as opened:
        assert (scene["width_px"], scene["height_px"]) == opened.size
    assert 2 ** (scene["top"] - 1) < max(opened.size) <= 2 ** scene["top"]
    assert scene["tiles"] == "/samples/S-drawn/fields/2/tiles/"


def test_neighbours_are_images_with_cells(reviewer: Client, shown: Sample) -> None:
    assert shown.analysis is not None
    shown.analysis.cells.filter(image=2).delete()
    context = reviewer.get("/samples/S-drawn/fields/1").context
    assert (context["previous"], context["next"]) == (None, 3)
    assert reviewer.get("/samples/S-drawn/fields/3").context["previous"] == 1


def test_an_image_that_the_analysis_did_not_use_is_told(reviewer: Client, shown: Sample) -> None:
    shown.images.create(position=99, sha256="0" * 64, name="image-99.jpg", n_bytes=1)
    page = reviewer.get("/samples/S-drawn/fields/99").content.decode()
    assert "did not use this image" in page
    assert reviewer.get("/samples/S-drawn/fields/98").status_code == 404
