"""Fields: truth, determinism, colours."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from millie.errors import ConfigError
from millie.synthetic import (
    CellType,
    FilmConfig,
    PatientStyle,
    SyntheticField,
    draw_cell,
    draw_field,
    draw_style,
)
from millie.synthetic.layout import separate, spread_red_cells

if TYPE_CHECKING:
    from collections.abc import Mapping

SMALL = FilmConfig(width_px=420, height_px=320, um_px=0.15)
MIXED = {CellType.SEGMENTED_NEUTROPHIL: 3, CellType.LYMPHOCYTE: 2, CellType.SMUDGE: 1,
         CellType.MYELOBLAST: 1}  # fmt: skip


def draw(
    config: FilmConfig = SMALL, composition: Mapping[CellType, int] = MIXED, seed: int = 0
) -> SyntheticField:
    return draw_field(config, composition, np.random.default_rng(seed))


def test_same_seed_same_field_other_seed_other_field() -> None:
    first, again, other = draw(seed=1), draw(seed=1), draw(seed=2)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.cell_labels, again.cell_labels)
    assert first.cells == again.cells
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("um_px", [0.05, 0.1, 0.12, 0.25, 0.5])
def test_truth_agrees_with_the_label_images(um_px: float) -> None:
    field = draw(replace(SMALL, width_px=900, height_px=700, um_px=um_px))
    assert field.image.shape == (700, 900, 3)
    assert field.image.dtype == np.uint8
    assert field.um_px == um_px
    for index, cell in enumerate(field.cells, start=1):
        rows, columns = np.nonzero(field.cell_labels == index)
        assert (columns.min(), rows.min()) == (cell.left_px, cell.top_px)
        assert np.ptp(columns) + 1 == cell.width_px
        assert np.ptp(rows) + 1 == cell.height_px
        assert len(rows) == cell.area_px
        assert (cell.x_px, cell.y_px) == pytest.approx((columns.mean(), rows.mean()))
        assert 0 <= cell.x_px < 900
        assert 0 <= cell.y_px < 700
    nuclei = field.nucleus_labels > 0
    assert np.array_equal(field.nucleus_labels[nuclei], field.cell_labels[nuclei])


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_the_composition(seed: int) -> None:
    composition = {kind: 1 + i % 3 for i, kind in enumerate(CellType)}
    field = draw(replace(SMALL, width_px=900, height_px=700), composition, seed)
    drawn = [cell.type for cell in field.cells]
    assert {kind: drawn.count(kind) for kind in CellType} == composition
    assert int(field.cell_labels.max()) == len(drawn)


def test_types_may_be_given_by_name() -> None:
    named: Any = {"lymphocyte": 2}
    assert [cell.type for cell in draw(SMALL, named).cells] == [CellType.LYMPHOCYTE] * 2


def test_cells_have_their_size_whatever_the_scale() -> None:
    for um_px in (0.06, 0.12, 0.24, 0.48):
        rng = np.random.default_rng(0)
        areas = []
        for _ in range(6):
            cell = draw_cell(CellType.LYMPHOCYTE, um_px, round(20 / um_px), rng).cells[0]
            areas.append(cell.area_px * um_px**2)
        assert 50 < np.mean(areas) < 100  # discs of 8.5 to 11 um: 57 to 95 um2


@pytest.mark.parametrize("kind", CellType)
def test_a_single_cell_lies_in_the_centre(kind: CellType) -> None:
    field = draw_cell(kind, 0.1, 240, np.random.default_rng(0))
    (cell,) = field.cells
    assert cell.type is kind
    assert (cell.x_px, cell.y_px) == pytest.approx((120, 120), abs=12)
    assert field.cell_labels[120, 120] == 1
    assert field.image.shape == (240, 240, 3)


CHANGES: dict[str, Any] = {
    "width_px": 430, "height_px": 330, "um_px": 0.16, "red_cell_coverage": 0.2,
    "red_cell_diameter_um": 8.0, "red_cell_spread": 0.2, "rouleaux": 0.6, "misshapen": 0.9,
    "platelets_per_red_cell": 0.3, "giant_platelets": 1.0, "platelet_clumps": 9.0,
    "debris": 30.0, "style": PatientStyle(redness=0.1),
}  # fmt: skip


@pytest.mark.parametrize("name", [item.name for item in fields(FilmConfig)])
def test_every_setting_changes_the_picture(name: str) -> None:
    changed = draw(replace(SMALL, **{name: CHANGES[name]}))
    plain = draw()
    assert changed.image.shape != plain.image.shape or not np.array_equal(
        changed.image, plain.image
    )


STYLE_CHANGES: dict[str, Any] = {
    "strength": 1.3, "redness": 0.9, "red_cell_redness": 0.9, "red_cell_strength": 0.7,
    "pallor": 0.9, "plasma": 0.1, "exposure": 0.7, "warmth": -0.8, "tint": 0.8, "vignette": 0.3,
    "gradient": 0.2, "gradient_angle": 2.0, "blur_um": 0.5, "noise": 6.0, "jpeg_quality": 40,
}  # fmt: skip


@pytest.mark.parametrize("name", [item.name for item in fields(PatientStyle)])
def test_every_part_of_the_style_changes_pixels_and_no_truth(name: str) -> None:
    plain = draw()
    style = replace(SMALL.style, **{name: STYLE_CHANGES[name]})
    changed = draw(replace(SMALL, style=style))
    assert not np.array_equal(plain.image, changed.image)
    assert plain.cells == changed.cells


@pytest.mark.parametrize("seed", range(8))
def test_colours_are_those_of_a_stained_film(seed: int) -> None:
    rng = np.random.default_rng(seed)
    style = draw_style(rng)
    bare = draw_field(replace(SMALL, style=style, red_cell_coverage=0, debris=0,
                              platelet_clumps=0), {}, rng).image  # fmt: skip
    glass = np.median(bare, axis=(0, 1))
    assert glass.min() > 140
    assert np.ptp(glass) < 60
    field = draw_field(replace(SMALL, style=style), {CellType.LYMPHOCYTE: 4}, rng)
    nucleus = field.image[field.nucleus_labels > 0].mean(axis=0)
    assert nucleus[1] < nucleus[0] < nucleus[2], "nuclei are purple"
    assert nucleus[1] < 0.35 * glass[1]
    outside = field.image[(field.cell_labels == 0)].astype(float) / glass
    red_cells = outside[(outside[:, 1] > 0.3) & (outside[:, 1] < 0.75)].mean(axis=0)
    assert red_cells[0] > red_cells[1] + 0.04, "red cells are reddish"


def test_red_cells_cover_what_is_asked_for() -> None:
    config = replace(SMALL, width_px=1000, height_px=800)
    shares = []
    for wanted in (0.1, 0.3, 0.5):
        field = draw(replace(config, red_cell_coverage=wanted), {})
        green = field.image[..., 1] / np.median(
            draw(replace(config, red_cell_coverage=0), {}).image[..., 1]
        )
        shares.append(float((green < 0.88).mean()))
    assert shares == sorted(shares)
    assert shares[1] == pytest.approx(0.27, abs=0.08)  # overlaps take some away


def test_leukocytes_do_not_lie_on_one_another() -> None:
    rng = np.random.default_rng(0)
    radii = rng.uniform(4, 9, 25)
    places = separate((150, 120), radii, rng)
    gap = np.sqrt(np.square(places[:, None] - places[None]).sum(axis=2))
    np.fill_diagonal(gap, np.inf)
    assert (gap - radii[:, None] - radii[None]).min() > -0.6
    assert np.all((places >= 0) & (places <= (150, 120)))


def test_red_cells_make_room_for_leukocytes() -> None:
    rng = np.random.default_rng(0)
    leukocytes = np.array([[40.0, 40.0], [70.0, 45.0]])
    radii = np.array([8.0, 6.0])
    places = spread_red_cells((110, 90), 7.2, 0.5, rouleaux=0.1, leukocytes=leukocytes,
                              radii_um=radii, rng=rng)  # fmt: skip
    gap = np.sqrt(np.square(places[:, None] - leukocytes[None]).sum(axis=2)) - radii
    assert gap.min() > 3.6 - 1.0
    assert (gap.min(axis=1) < 4.2).sum() >= 3, "some touch"


@pytest.mark.parametrize(
    ("name", "value"),
    [("width_px", 10), ("height_px", 9000), ("um_px", 0.01), ("um_px", float("nan")),
     ("red_cell_coverage", 0.9), ("rouleaux", -0.1), ("debris", 1000)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"FilmConfig\.{name}=.*expected"):
        replace(SMALL, **{name: value})


def test_unknown_types_negative_numbers_and_crowds_are_refused() -> None:
    unknown: Any = {"plasma cell": 1}
    with pytest.raises(ConfigError, match=r"'plasma cell'.*expected one of: lymphocyte"):
        draw(SMALL, unknown)
    with pytest.raises(ConfigError, match="-1 cells"):
        draw(SMALL, {CellType.MONOCYTE: -1})
    with pytest.raises(ConfigError, match="draw fewer or a larger field"):
        draw(SMALL, {CellType.MONOCYTE: 40})


def test_a_field_may_be_empty_of_leukocytes() -> None:
    field = draw(SMALL, {})
    assert field.cells == ()
    assert not field.cell_labels.any()
