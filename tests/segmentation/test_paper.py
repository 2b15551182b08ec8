"""The two published methods on drawn discs: what their rules say must follow."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from millie.config import SegmentationConfig
from millie.segmentation.paper import h_maxima, segment_paper, segment_released_code
from millie.types import Detection, PixelSize

CONFIG = SegmentationConfig()
BACKGROUND = (230, 225, 235)
STAINED = (120, 40, 160)  # saturation 191
PALE = (200, 140, 190)  # saturation 76, a red cell's
METHODS = pytest.mark.parametrize("method", [segment_paper, segment_released_code])


def discs(*places: tuple[int, int, int], colour: tuple[int, int, int] = STAINED) -> np.ndarray:
    """Discs given as x, y, radius on an empty field of 400 x 300 px."""
    image = np.full((300, 400, 3), BACKGROUND, np.uint8)
    for x, y, radius in places:
        cv2.circle(image, (x, y), radius, colour, -1)
    return image


def centres(found: Detection) -> list[tuple[float, float]]:
    return [(r.cell.x_px, r.cell.y_px) for r in found.regions]


@METHODS
def test_each_stained_disc_is_one_cell_and_the_background_is_none(method) -> None:
    found = method(discs((80, 90, 35), (300, 200, 40)), None, CONFIG)
    assert np.allclose(centres(found), [(80, 90), (300, 200)], atol=1)
    assert found.background_rgb == BACKGROUND
    for region in found.regions:
        assert region.cell.area_px == region.cell_mask.sum()
        assert not region.cell.at_border


@METHODS
def test_a_rim_of_four_pixels_or_more_goes_to_the_background(method) -> None:
    (region,) = method(discs((150, 150, 50)), None, CONFIG).regions
    assert 13 / 2 < np.sqrt(region.cell.area_px / np.pi) < 46.5
    assert max(region.cell.width_px, region.cell.height_px) <= 93


@METHODS
def test_two_touching_discs_are_divided(method) -> None:
    found = method(discs((120, 150, 40), (196, 150, 40)), None, CONFIG)
    assert np.allclose(centres(found), [(120, 150), (196, 150)], atol=4)


@METHODS
def test_quarter_turns_turn_the_cells(method) -> None:
    image = discs((80, 90, 35), (150, 100, 40), (300, 200, 50))
    plain = method(image, None, CONFIG)
    turned = method(np.ascontiguousarray(np.rot90(image)), None, CONFIG)
    back = sorted((image.shape[1] - 1 - y, x) for x, y in centres(turned))
    assert np.allclose(back, sorted(centres(plain)), atol=1)


def test_fixed_threshold_passes_over_what_otsu_finds() -> None:
    pale = discs((80, 90, 35), (300, 200, 40), colour=PALE)
    assert len(segment_paper(pale, None, CONFIG).regions) == 2
    found = segment_released_code(pale, None, CONFIG)
    assert found.regions == ()
    assert found.diagnostics["threshold"] == 127


def test_small_blobs_go_before_the_opening_in_the_code() -> None:
    """Discs of 1,810 and 2,920 px, of which less than 2,500 is left after the watershed."""
    (region,) = segment_released_code(discs((80, 90, 24), (300, 200, 30)), None, CONFIG).regions
    assert (region.cell.x_px, region.cell.y_px) == pytest.approx((300, 200), abs=1)
    assert region.cell.area_px < 2500


def test_small_blobs_go_at_the_end_in_the_text() -> None:
    """A disc of 2,920 px of which less than 1,000 is left, and one of 6,360 px."""
    (region,) = segment_paper(discs((80, 90, 30), (300, 200, 45)), None, CONFIG).regions
    assert (region.cell.x_px, region.cell.y_px) == pytest.approx((300, 200), abs=1)


@METHODS
def test_cells_at_the_edge_are_flagged_or_dropped(method) -> None:
    image = discs((10, 150, 45), (250, 150, 45))
    assert [r.cell.at_border for r in method(image, None, CONFIG).regions] == [True, False]
    kept = method(image, None, SegmentationConfig(drop_border=True)).regions
    assert [r.cell.at_border for r in kept] == [False]


@METHODS
def test_pixel_size_gives_areas_and_moves_nothing(method) -> None:
    image = discs((150, 150, 50))
    (plain,) = method(image, None, CONFIG).regions
    (sized,) = method(image, PixelSize(0.1), CONFIG).regions
    assert plain.cell.area_um2 is None
    assert sized.cell.area_um2 == pytest.approx(plain.cell.area_px * 0.01)
    assert (plain.cell.x_px, plain.cell.y_px) == (sized.cell.x_px, sized.cell.y_px)


def test_a_field_without_stain_has_no_cell_where_the_code_takes_the_whole_image() -> None:
    assert segment_released_code(discs(), None, CONFIG).regions == ()
    assert segment_paper(discs(), None, CONFIG).regions == ()


def reached(heights: np.ndarray, y: int, x: int, depth: float) -> float:
    """Highest place that can be walked to from (y, x) staying above its height minus depth."""
    allowed = (heights > heights[y, x] - depth).astype(np.uint8)
    labels = cv2.connectedComponents(allowed, connectivity=8)[1]
    return float(heights[labels == labels[y, x]].max())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("depth", [1.0, 2.0, 5.0])
def test_h_maxima_are_what_their_definition_says(seed: int, depth: float) -> None:
    rng = np.random.default_rng(seed)
    heights = cv2.GaussianBlur(rng.uniform(0, 40, (24, 30)).astype(np.float32), (0, 0), 1.0)
    heights = np.round(np.maximum(heights - 12, 0))
    found = h_maxima(heights, depth)
    for y, x in np.ndindex(*heights.shape):
        height = heights[y, x]
        expected = height >= depth and reached(heights, y, x, depth) == height
        assert found[y, x] == expected, (y, x)
