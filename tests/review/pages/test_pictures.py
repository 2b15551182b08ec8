from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from django.conf import settings
from PIL import Image

from millie.review.pages.lookup import folder_of
from millie.review.pictures.crops import open_bag

if TYPE_CHECKING:
    from django.test import Client

    from millie.review.models import Sample


def _opened(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        return image.convert("RGB")


def test_a_crop_is_the_cell_of_the_bag(reviewer: Client, shown: Sample) -> None:
    answer = reviewer.get("/samples/S-drawn/analyses/1/cells/5.jpg")
    assert "immutable" in answer.headers["Cache-Control"]
    assert "private" in answer.headers["Cache-Control"]
    assert shown.analysis is not None
    wanted = open_bag(folder_of(shown.analysis)).image(5).astype(int)
    got = np.asarray(_opened(answer.content)).astype(int)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).mean() < 4


def test_what_is_not_there_is_a_404(reviewer: Client, shown: Sample) -> None:
    for path in ("analyses/1/cells/99999.jpg", "analyses/9/cells/1.jpg", "analyses/x/cells/1.jpg",
                 "fields/1/tiles/30/0_0.jpg", "fields/99/tiles/9/0_0.jpg",
                 "fields/1/tiles/9/77_0.jpg", "analyses/1/predictions.json",
                 "analyses/1/../../secret.key"):  # fmt: skip
        assert reviewer.get(f"/samples/S-drawn/{path}").status_code == 404, path


def test_a_tile_shows_its_part_of_the_image(reviewer: Client, shown: Sample) -> None:
    image = shown.images.get(position=1)
    with Image.open(settings.DATA.image(image.sha256)) as opened:
        whole = np.asarray(opened.convert("RGB")).astype(int)
    level = (max(whole.shape[:2]) - 1).bit_length()
    answer = reviewer.get(f"/samples/S-drawn/fields/1/tiles/{level}/1_0.jpg")
    got = np.asarray(_opened(answer.content)).astype(int)
    assert np.abs(got - whole[:512, 512:1024]).mean() < 4


def test_the_report_is_served_under_its_own_policy(reviewer: Client, shown: Sample) -> None:
    answer = reviewer.get("/samples/S-drawn/analyses/1/report.html")
    policies = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policies
    assert "frame-ancestors 'none'" in policies
    assert "S-drawn" in answer.content.decode()


def test_pages_state_a_policy_without_inline_code(reviewer: Client, shown: Sample) -> None:
    for path in ("", "cells", "fields/1"):
        answer = reviewer.get(f"/samples/S-drawn/{path}")
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        page = answer.content.decode()
        assert " style=" not in page
        assert "onclick" not in page
