"""Leukocytes in drawn fields with known truth: properties that hold whatever the stain."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from PIL import Image

from millie.config import SegmentationConfig
from millie.errors import ConfigError
from millie.segmentation import (
    SEGMENTERS,
    SampleStatistics,
    central_region,
    detect,
    sample_statistics,
    segment,
)
from millie.segmentation.scale import Reading
from millie.types import Detection, PixelSize

UM_PX = 0.12
DEFAULT = SegmentationConfig()
BACKGROUND = np.array([235.0, 230.0, 225.0])
RED_CELL = np.array([0.12, 0.30, 0.22])
CYTOPLASM = np.array([0.25, 0.25, 0.05])
NUCLEUS = np.array([0.85, 1.15, 0.25])


@dataclass(frozen=True)
class Drawn:
    """A drawn field and the centres (x, y) of its leukocytes."""

    image: np.ndarray
    centres: np.ndarray


def draw(
    n_leukocytes: int,
    *,
    side_um: float = 100,
    um_px: float = UM_PX,
    seed: int = 0,
    red_cells: int = 90,
) -> Drawn:
    """Discs on a grid: red cells with pallor, leukocytes with an eccentric nucleus."""
    rng = np.random.default_rng(seed)
    side = round(side_um / um_px)
    density = np.zeros((side, side, 3), np.float32)
    cell = 9.5
    grid = np.array([
        (x, y) for x in np.arange(cell, side_um - cell, cell * 1.25)
        for y in np.arange(cell, side_um - cell, cell * 1.25)
    ])  # fmt: skip
    order = rng.permutation(len(grid))
    white = grid[order[:n_leukocytes]] + rng.uniform(-0.3, 0.3, (n_leukocytes, 2))
    for x, y in grid[order[n_leukocytes : n_leukocytes + red_cells]]:
        _disc(density, (x, y), 3.6, RED_CELL, um_px)
        _disc(density, (x, y), 1.1, RED_CELL * 0.6, um_px)
    for x, y in white:
        _disc(density, (x, y), 5.2, CYTOPLASM, um_px)
        _disc(density, (x + 0.5, y), rng.uniform(3.9, 4.5), NUCLEUS, um_px)
    density = cv2.GaussianBlur(density, (0, 0), 0.12 / um_px)
    pixels = BACKGROUND * np.exp(-density) + rng.normal(0, 2, density.shape)
    return Drawn(np.clip(pixels, 0, 255).astype(np.uint8), white / um_px)


def _disc(
    density: np.ndarray, centre: tuple, radius: float, value: np.ndarray, um_px: float
) -> None:
    point = tuple(round(v / um_px * 16) for v in centre)
    colour = tuple(float(v) for v in value)
    cv2.circle(density, point, round(radius / um_px * 16), colour, -1, cv2.LINE_8, 4)


def f1(found: Detection, centres: np.ndarray, um_px: float = UM_PX) -> float:
    free = list(map(tuple, centres))
    hits = 0
    for region in found.regions:
        near = [
            c
            for c in free
            if np.hypot(c[0] - region.cell.x_px, c[1] - region.cell.y_px) * um_px < 4
        ]
        if near:
            free.remove(near[0])
            hits += 1
    return 2 * hits / max(len(found.regions) + len(centres), 1)


def points(found: Detection) -> np.ndarray:
    return np.array(sorted((r.cell.x_px, r.cell.y_px) for r in found.regions))


@pytest.fixture(scope="module")
def field() -> Drawn:
    return draw(12)


@pytest.mark.parametrize("um_px", [0.05, 0.12, 0.25, 0.5])
@pytest.mark.parametrize("known", [True, False])
def test_finds_every_cell_at_any_scale(um_px: float, known: bool) -> None:
    drawn = draw(12, um_px=um_px, red_cells=45)
    found = segment(drawn.image, PixelSize(um_px) if known else None, DEFAULT)
    assert f1(found, drawn.centres, um_px) > 0.99
    assert found.pixel_size is not None
    assert found.pixel_size.um_px == pytest.approx(um_px, rel=0.1)


@pytest.mark.parametrize("count", [0, 1, 15, 45])
def test_counts_from_none_to_all(count: int) -> None:
    drawn = draw(count, red_cells=49 - count)
    found = segment(drawn.image, PixelSize(UM_PX), DEFAULT)
    assert len(found.regions) == count


def test_five_hundred_cells() -> None:
    drawn = draw(500, side_um=300, red_cells=60)
    found = segment(drawn.image, PixelSize(UM_PX), DEFAULT)
    assert f1(found, drawn.centres) > 0.99


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotation_and_flips_only_move_the_result(field: Drawn, turns: int, mirrored: bool) -> None:
    image = np.rot90(field.image, turns)
    image = np.ascontiguousarray(image[:, ::-1] if mirrored else image)
    plain = segment(field.image, PixelSize(UM_PX), DEFAULT)
    moved = segment(image, PixelSize(UM_PX), DEFAULT)
    side = field.image.shape[0] - 1
    back = points(moved)
    if mirrored:
        back[:, 0] = side - back[:, 0]
    for _ in range(turns):
        back = np.column_stack([side - back[:, 1], back[:, 0]])
    assert len(moved.regions) == len(plain.regions)
    for point in points(plain):
        assert np.hypot(*(back - point).T).min() * UM_PX < 0.8


def gain(red: float, green: float, blue: float):
    return lambda image: np.clip(image * np.array([red, green, blue]), 0, 255).astype(np.uint8)


def vignette(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return (image * (1 - 0.17 * (x**2 + y**2))[:, :, None]).astype(np.uint8)


def jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=30)
    return np.asarray(Image.open(buffer))


CHANGES = {
    "darker": gain(0.8, 0.8, 0.8),
    "brighter": gain(1.08, 1.08, 1.08),
    "blue light": gain(0.8, 0.9, 1.1),
    "yellow light": gain(1.05, 1.0, 0.7),
    "vignetting": vignette,
    "JPEG 30": jpeg,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_light_and_compression_change_nothing(field: Drawn, change) -> None:
    before = f1(segment(field.image, None, DEFAULT), field.centres)
    after = f1(segment(np.ascontiguousarray(change(field.image)), None, DEFAULT), field.centres)
    assert before > 0.99
    assert abs(before - after) < 0.01


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_resized_image_gives_the_same_cells(field: Drawn, factor: float) -> None:
    image = cv2.resize(field.image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    found = segment(image, None, DEFAULT)
    assert f1(found, field.centres * factor, UM_PX / factor) > 0.99


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_wrong_scale_by_a_fifth_changes_nothing(field: Drawn, factor: float) -> None:
    found = segment(field.image, PixelSize(UM_PX * factor), DEFAULT)
    assert f1(found, field.centres) > 0.99


def test_masks_fill_their_boxes_and_measure_the_nucleus(field: Drawn) -> None:
    found = segment(field.image, PixelSize(UM_PX), DEFAULT)
    for region in found.regions:
        cell = region.cell
        assert (
            region.cell_mask.shape == region.nucleus_mask.shape == (cell.height_px, cell.width_px)
        )
        assert region.cell_mask.any(axis=0).all()
        assert region.cell_mask.any(axis=1).all()
        assert not (region.nucleus_mask & ~region.cell_mask).any()
        assert cell.area_px == region.cell_mask.sum()
        assert cell.area_um2 == pytest.approx(cell.area_px * UM_PX**2)
        assert 30 < region.nucleus_mask.sum() * UM_PX**2 < 75
        assert 0 <= cell.quality <= 1
    order = [(r.cell.top_px, r.cell.left_px) for r in found.regions]
    assert order == sorted(order)


def pair(apart_um: float) -> np.ndarray:
    """Two leukocytes of 5 um radius whose bodies are so far apart, without red cells."""
    density = np.zeros((334, 334, 3), np.float32)
    for side in (-1, 1):
        x = 20 + side * (5.0 + apart_um / 2)
        _disc(density, (x, 20), 5.0, CYTOPLASM, UM_PX)
        _disc(density, (x, 20), 4.0, NUCLEUS, UM_PX)
    density = cv2.GaussianBlur(density, (0, 0), 1.0)
    noise = np.random.default_rng(0).normal(0, 2, density.shape)
    return np.clip(BACKGROUND * np.exp(-density) + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("apart_um", "clump"), [(-0.5, True), (6.0, False)])
def test_cells_that_touch_are_a_clump(apart_um: float, clump: bool) -> None:
    found = segment(pair(apart_um), PixelSize(UM_PX), DEFAULT)
    assert [region.cell.in_clump for region in found.regions] == [clump, clump]


@pytest.mark.parametrize("cut_um", [0.5, 1.0, 3.0])
def test_a_cell_of_which_the_edge_cuts_a_little_is_at_the_border(cut_um: float) -> None:
    image = pair(6.0)
    left = 20 - 3.0 - 10.0 + cut_um
    found = segment(
        np.ascontiguousarray(image[:, round(left / UM_PX) :]), PixelSize(UM_PX), DEFAULT
    )
    assert sorted(region.cell.at_border for region in found.regions) == [False, True]


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (2, 700), (9, 1000), (1, 1)])
def test_slivers_have_no_cells(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for scale in (None, PixelSize(0.25)):
        assert segment(image, scale, DEFAULT).regions == ()


def eyepiece(image: np.ndarray, level: int) -> np.ndarray:
    """The view through a round eyepiece with a dark surround."""
    side = len(image)
    rows, columns = np.mgrid[:side, :side] - side / 2
    seen = image.copy()
    seen[rows**2 + columns**2 > (0.48 * side) ** 2] = level
    return seen


@pytest.mark.parametrize("level", [0, 20])
def test_a_dark_surround_is_not_film(field: Drawn, level: int) -> None:
    middle = len(field.image) / 2
    away = np.hypot(*(field.centres - middle).T)
    whole = field.centres[away < 0.48 * len(field.image) - 9 / UM_PX]
    found = segment(eyepiece(field.image, level), None, DEFAULT)
    places = np.array([(r.cell.x_px, r.cell.y_px) for r in found.regions])
    assert len(whole) > 0
    for x, y in whole:
        assert np.hypot(*(places - (x, y)).T).min() < 3 / UM_PX
    assert np.hypot(*(places - middle).T).max() < 0.5 * len(field.image)
    assert found.diagnostics["um_px"] == pytest.approx(UM_PX, rel=0.15)


def test_a_dark_footer_bar_is_not_film(field: Drawn) -> None:
    height, width = field.image.shape[:2]
    image = np.full((height + height // 8, width, 3), 60, np.uint8)
    image[:height] = field.image
    cv2.putText(image, "100x oil", (20, height + height // 12), 0, 1.5, (230, 230, 230), 3)
    found = segment(image, None, DEFAULT)
    assert f1(found, field.centres) > 0.95
    assert found.diagnostics["um_px"] == pytest.approx(UM_PX, rel=0.15)


def lone_crop() -> np.ndarray:
    """One leukocyte and no red cell: its scale can only be guessed."""
    return draw(1, side_um=24, red_cells=0).image


def test_a_guessed_scale_is_not_stated() -> None:
    image = lone_crop()
    assert segment(image, None, DEFAULT).pixel_size is None
    sample = sample_statistics([(image, None)] * 3, DEFAULT)
    assert sample.um_px == {}
    assert segment(image, None, DEFAULT, sample).pixel_size is None


def test_a_refused_image_keeps_the_scale_that_was_given() -> None:
    grey = np.repeat(lone_crop()[:, :, 1:2], 3, axis=2)
    found = segment(np.ascontiguousarray(grey), PixelSize(UM_PX), DEFAULT)
    assert "greyscale" in found.diagnostics["refused"]
    assert found.pixel_size == PixelSize(UM_PX)


def test_an_empty_corner_of_a_nearly_empty_film_holds_no_cell() -> None:
    image = np.full((150, 3_000, 3), BACKGROUND.astype(np.uint8))
    small = cv2.resize(pair(6.0), None, fx=UM_PX / 0.25, fy=UM_PX / 0.25)[: len(image)]
    image[: len(small), 100 : 100 + small.shape[1]] = small
    assert len(segment(image, PixelSize(0.25), DEFAULT).regions) == 2


def test_a_very_long_strip_is_searched_to_its_end() -> None:
    """OpenCV looks pixels up in pictures of less than 32,767 a side only."""
    image = np.full((150, 33_000, 3), BACKGROUND.astype(np.uint8))
    small = cv2.resize(pair(6.0), None, fx=UM_PX / 0.25, fy=UM_PX / 0.25)[: len(image)]
    image[: len(small), 100 : 100 + small.shape[1]] = small
    image[: len(small), -small.shape[1] - 100 : -100] = small
    found = segment(image, PixelSize(0.25), DEFAULT)
    ends = [r.cell.x_px for r in found.regions]
    assert len(ends) == 4
    assert max(ends) > 32_767


def test_cells_at_the_edge_are_flagged_or_dropped(field: Drawn) -> None:
    x = round(field.centres[0][0])
    cut = np.ascontiguousarray(field.image[:, x:] if x < 400 else field.image[:, :x])
    found = segment(cut, PixelSize(UM_PX), DEFAULT)
    flagged = [r for r in found.regions if r.cell.at_border]
    assert len(flagged) >= 1
    kept = segment(cut, PixelSize(UM_PX), SegmentationConfig(drop_border=True))
    assert len(kept.regions) == len(found.regions) - len(flagged)


def test_background_colour_and_diagnostics(field: Drawn) -> None:
    found = segment(field.image, None, DEFAULT)
    np.testing.assert_allclose(found.background_rgb, BACKGROUND, atol=4)
    assert found.diagnostics["scale_source"] == "red cells"
    assert "refused" not in found.diagnostics
    json.dumps(found.diagnostics)


def test_sample_statistics_lend_their_scale_to_small_images(field: Drawn) -> None:
    crop = np.ascontiguousarray(field.image[:300, :300])
    tiles = [
        np.ascontiguousarray(field.image[a : a + 300, b : b + 300])
        for a in (0, 300)
        for b in (0, 300)
    ]
    sample = sample_statistics([(tile, None) for tile in tiles], DEFAULT)
    assert sample.n_images == 4
    assert json.loads(json.dumps(sample.to_dict()))["n_images"] == 4
    assert pickle.loads(pickle.dumps(sample)) == sample  # noqa: S301  units carry it to workers
    found = segment(crop, None, DEFAULT, sample)
    assert found.diagnostics["scale_source"] == "sample"
    assert found.pixel_size is not None
    assert found.pixel_size.um_px == pytest.approx(UM_PX, rel=0.1)


def test_given_scale_wins_over_configuration_and_sample(field: Drawn) -> None:
    sample = sample_statistics([(field.image, None)], DEFAULT)
    config = SegmentationConfig(um_px=0.2)
    assert segment(field.image, PixelSize(0.13), config, sample).pixel_size == PixelSize(0.13)
    assert segment(field.image, None, config, sample).pixel_size == PixelSize(0.2)


def test_central_region_is_the_cell_of_a_crop(field: Drawn) -> None:
    x, y = field.centres[3].round().astype(int)
    half = round(14 / UM_PX)
    padded = cv2.copyMakeBorder(field.image, half, half, half, half, cv2.BORDER_REFLECT)
    crop = np.ascontiguousarray(padded[y : y + 2 * half, x : x + 2 * half])
    region = central_region(segment(crop, PixelSize(UM_PX), DEFAULT), crop.shape)
    assert region is not None
    assert np.hypot(region.cell.x_px - half, region.cell.y_px - half) * UM_PX < 1.5


def test_empty_field_has_no_central_region() -> None:
    image = draw(0, red_cells=30).image
    assert central_region(segment(image, PixelSize(UM_PX), DEFAULT), image.shape) is None


@pytest.mark.parametrize("method", SEGMENTERS)
def test_every_method_keeps_the_interface(field: Drawn, method: str) -> None:
    config = SegmentationConfig(method=method)
    (found,) = detect([(field.image, PixelSize(UM_PX))], config)
    again = segment(field.image, PixelSize(UM_PX), config)
    assert [r.cell for r in found.regions] == [r.cell for r in again.regions]
    assert len(found.background_rgb) == 3
    for region in found.regions:
        assert region.cell_mask.shape == (region.cell.height_px, region.cell.width_px)


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected uint8 RGB"):
        segment(np.zeros((20, 20), np.uint8), None, DEFAULT)
    with pytest.raises(ConfigError, match="expected uint8 RGB"):
        segment(np.zeros((20, 20, 3), np.float32), None, DEFAULT)


def photograph() -> np.ndarray:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)


def tissue() -> np.ndarray:
    """Pink sheet with violet dots and little empty background, as in an H&E section."""
    rng = np.random.default_rng(2)
    density = np.full((480, 640, 3), (0.15, 0.45, 0.2), np.float32)
    density *= cv2.resize(rng.uniform(0.6, 1.6, (24, 32)).astype(np.float32), (640, 480))[
        :, :, None
    ]
    for x, y in rng.integers(0, 640, (300, 2)):
        cv2.circle(density, (int(x), int(y)), 9, (0.8, 0.9, 0.35), -1)
    return (245 * np.exp(-cv2.GaussianBlur(density, (0, 0), 1.5))).astype(np.uint8)


REFUSED = {
    "greyscale": np.repeat(draw(5).image[:, :, 1:2], 3, axis=2),
    "photograph": photograph(),
    "tissue": tissue(),
    "black": np.zeros((300, 300, 3), np.uint8),
    "white": np.full((300, 300, 3), 255, np.uint8),
}


@pytest.mark.parametrize("image", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_blood_film_is_refused_with_a_reason(image: np.ndarray) -> None:
    found = segment(np.ascontiguousarray(image), None, DEFAULT)
    assert found.regions == ()
    assert isinstance(found.diagnostics["refused"], str)
    assert segment(np.ascontiguousarray(image), PixelSize(0.1), DEFAULT).diagnostics["refused"]


def test_a_false_coarse_scale_does_not_blow_a_field_up() -> None:
    """26 MP at 1 um/px would be worked on as 164 MP."""
    white = np.broadcast_to(np.uint8(255), (5120, 5120, 3))
    found = segment(white, PixelSize(1.0), DEFAULT)
    assert found.regions == ()
    assert "5.1 x 5.1 mm" in found.diagnostics["refused"]
    assert "164 MP; check the um/px" in found.diagnostics["refused"]
    assert "split the image into fields" in found.diagnostics["refused"]


def test_a_small_field_of_a_weak_objective_is_enlarged(field: Drawn) -> None:
    assert "refused" not in segment(field.image, PixelSize(1.0), DEFAULT).diagnostics


def test_a_stated_scale_is_compared_with_the_red_cells_and_kept() -> None:
    fields = [draw(3, seed=seed).image for seed in range(4)]
    config = SegmentationConfig()

    def said(um_px: float | None, settings: SegmentationConfig = config) -> SampleStatistics:
        size = PixelSize(um_px) if um_px else None
        return sample_statistics([(image, size) for image in fields], settings)

    right, double = said(UM_PX).over_stated, said(2 * UM_PX)
    assert right
    assert double.over_stated == pytest.approx(right / 2)
    assert double.um_px == {}
    found = segment(fields[0], PixelSize(2 * UM_PX), config, double)
    assert found.diagnostics["over_stated"] == pytest.approx(right / 2, abs=1e-3)
    assert found.pixel_size == PixelSize(2 * UM_PX)
    assert "over_stated" not in segment(fields[0], None, config, said(None)).diagnostics
    assert said(2 * UM_PX, SegmentationConfig(method="paper")).over_stated is None


def test_eight_images_are_enough_to_check_a_stated_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def read(*_: object) -> Reading:
        looked.append(1)
        return Reading(0.1, 30, leukocyte=True)

    monkeypatch.setattr("millie.segmentation.leukocytes.read_scale", read)
    blank = np.full((64, 64, 3), 240, np.uint8)
    sample_statistics([(blank, PixelSize(0.1))] * 20, SegmentationConfig())
    assert len(looked) == 8
