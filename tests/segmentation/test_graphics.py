"""Text, bars and arrows are told from a film, in any colour, smoothed or compressed."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from millie.config import SegmentationConfig
from millie.segmentation import segment
from millie.segmentation.graphics import find_graphics, without_graphics
from millie.synthetic.film import FilmConfig, draw_field

COLOURS = {
    "blue": (40, 40, 220), "magenta": (220, 20, 200), "red": (230, 20, 20), "purple": (128, 0, 128),
    "yellow": (255, 230, 0), "green": (0, 200, 0), "cyan": (0, 220, 220), "black": (0, 0, 0),
}  # fmt: skip


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    config = FilmConfig(width_px=640, height_px=480)
    return draw_field(
        config, {"lymphocyte": 3, "segmented_neutrophil": 3}, np.random.default_rng(5)
    ).image


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def labelled(
    image: np.ndarray, colour: tuple[int, int, int], box: tuple[int, int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The image with "20 µm" over a bar in its lower right corner, and where they are."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    if box:
        draw.rectangle((width - 170, height - 80, width - 10, height - 10), fill=box)
    before = np.asarray(picture)
    draw.text((width - 150, height - 75), "20 µm", fill=colour, font=ImageFont.load_default(38))
    draw.rectangle((width - 160, height - 28, width - 20, height - 20), fill=colour)
    after = np.asarray(picture)
    return after, (after != before).any(axis=2)


@pytest.mark.parametrize("colour", COLOURS.values(), ids=COLOURS.keys())
@pytest.mark.parametrize("quality", [None, 90, 75])
def test_a_bar_and_its_text_are_found(
    film: np.ndarray, colour: tuple[int, int, int], quality: int | None
) -> None:
    image, truth = labelled(film, colour)
    found = find_graphics(image if quality is None else jpeg(image, quality))
    assert found is not None
    assert found[truth].mean() > 0.6
    assert not found[:380].any()


@pytest.mark.parametrize(
    ("box", "colour"), [((255, 255, 255), (40, 40, 220)), ((0,) * 3, (255, 230, 0))]
)
def test_text_in_a_box_is_found(film: np.ndarray, box: tuple, colour: tuple) -> None:
    image, truth = labelled(film, colour, box)
    found = find_graphics(image)
    assert found is not None
    assert found[truth].mean() > 0.8


def test_a_film_is_left_as_it_is(film: np.ndarray) -> None:
    for image in (film, jpeg(film, 30), film // 2, film[::2, ::2], film[:8, :8]):
        assert without_graphics(image) is image


def test_a_surround_and_a_footer_bar_are_no_graphics(film: np.ndarray) -> None:
    framed = cv2.copyMakeBorder(film, 8, 60, 8, 8, cv2.BORDER_CONSTANT, value=(20, 20, 60))
    assert find_graphics(framed) is None


def test_what_is_painted_over_is_film_again(film: np.ndarray) -> None:
    image, truth = labelled(film, COLOURS["blue"])
    painted = without_graphics(image)
    far = cv2.dilate(truth.view(np.uint8), np.ones((15, 15), np.uint8)) == 0
    np.testing.assert_array_equal(painted[far], film[far])
    assert np.abs(painted[truth].astype(int) - COLOURS["blue"]).max(axis=1).mean() > 100


@pytest.mark.parametrize("name", ["blue", "magenta"])
def test_text_is_no_cell_and_moves_neither_scale_nor_background(
    film: np.ndarray, name: str
) -> None:
    plain = segment(film, None, SegmentationConfig())
    found = segment(labelled(film, COLOURS[name])[0], None, SegmentationConfig())
    away = [r.cell for r in plain.regions if r.cell.x_px < 460 or r.cell.y_px < 390]
    cells = [r.cell for r in found.regions]
    assert len(cells) <= len(plain.regions)
    for cell in away:
        assert min(np.hypot(c.x_px - cell.x_px, c.y_px - cell.y_px) for c in cells) < 5
    assert found.diagnostics["um_px"] == pytest.approx(plain.diagnostics["um_px"], rel=0.03)
    np.testing.assert_allclose(found.background_rgb, plain.background_rgb, atol=2)


@pytest.mark.realdata
def test_nothing_real_is_taken_for_graphics(data_root: Path) -> None:
    patterns = (
        "bccd/JPEGImages/*", "fields_other/*/images/*", "aria_all/*/*", "pbc_cells/*/*",
        "apl_aml/All/*/Signed*/*/*.jpg", "lmu_cells/*/*", "bone_marrow_cells/*/*", "all_idb2/img/*",
        "wbc_masks/*/*.bmp", "bcisc/cells/images/*",
    )  # fmt: skip
    seen = 0
    for pattern in patterns:
        paths = sorted(data_root.glob(pattern))
        for path in paths[5 :: len(paths) // 12]:
            try:
                image = np.asarray(Image.open(path).convert("RGB"))
            except OSError:  # damaged files of the published set
                continue
            seen += 1
            assert find_graphics(image) is None, path
    assert seen > 100
