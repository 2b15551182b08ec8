from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from millie.review.pictures import scene
from millie.types import ImageKind, Place, SourceRecord

if TYPE_CHECKING:
    from pathlib import Path

_CUT = Place(256, 0, 512, 512, 2.0, (300, 20, 700, 480))


class _Bag:
    sources = (
        SourceRecord("S-x/image-1.jpg", "0" * 64, ImageKind.FIELD, 0.1, 600, 800),
        SourceRecord(
            "S-x/image-2.svs_at_256_0", "1" * 64, ImageKind.SLIDE, 0.2, 256, 256, place=_CUT
        ),
    )


@pytest.fixture(autouse=True)
def _bag(monkeypatch: pytest.MonkeyPatch) -> None:
    bag = _Bag()
    monkeypatch.setattr(scene, "open_bag", lambda _: bag)


def test_a_photograph_has_the_size_of_its_record(tmp_path: Path) -> None:
    found = scene.scene_of(tmp_path, "image-1.jpg", tmp_path / "not-opened")
    assert (found.width_px, found.height_px, found.um_px) == (800, 600, 0.1)
    assert (found.lowest, found.top) == (9, 10)
    assert not scene.is_slide(tmp_path, "image-1.jpg")


def test_a_slide_has_its_own_size_and_the_scale_of_its_full_resolution(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    tifffile = pytest.importorskip("tifffile")
    pixels = np.random.default_rng(1).integers(0, 255, (700, 1300, 3), dtype=np.uint8)
    path = tmp_path / "digest"
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb")
    found = scene.scene_of(tmp_path, "image-2.svs", path)
    assert (found.width_px, found.height_px) == (1300, 700)
    assert found.um_px == pytest.approx(0.1)
    assert scene.is_slide(tmp_path, "image-2.svs")


def test_an_image_that_was_not_used_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="not among the images"):
        scene.is_slide(tmp_path, "image-3.jpg")
