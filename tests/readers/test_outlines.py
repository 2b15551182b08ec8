"""Outlines from elsewhere: which file goes with which image, what a file may hold, and masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millie.config import ReadingConfig
from millie.errors import ConfigError, DataError, MissingFileError
from millie.readers.outlines import read_outlines, with_outlines
from millie.types import Cohort, ImageSource, Patient

SHAPE = (60, 80)
SQUARE = [[10, 20], [30, 20], [30, 40], [10, 40], [10, 20]]
UUID = "9b1b9162-c8aa-5bf7-90b1-cb1ad61db369"


def feature(*rings: Any, **more: Any) -> dict[str, Any]:
    geometry = {"type": "Polygon", "coordinates": list(rings)}
    return {"type": "Feature", "id": UUID, "geometry": geometry, "properties": {}, **more}


def shifted(ring: list[list[int]], x: float, y: float) -> list[list[float]]:
    return [[a + x, b + y] for a, b in ring]


def read(tmp_path: Path, content: Any) -> Any:
    path = tmp_path / "a.geojson"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_outlines(path, "a.jpg", SHAPE, ReadingConfig())


def collection(*features: dict[str, Any]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def test_a_pixel_belongs_to_a_cell_if_its_centre_does(tmp_path: Path) -> None:
    (region,), notes = read(tmp_path, collection(feature(SQUARE)))
    cell = region.cell
    assert (cell.left_px, cell.top_px, cell.width_px, cell.height_px) == (10, 20, 20, 20)
    assert (cell.x_px, cell.y_px, cell.area_px) == (19.5, 29.5, 400)
    assert region.cell_mask.all()
    assert not region.nucleus_mask.any()
    assert not any([cell.at_border, cell.in_clump, cell.smudge])
    assert not notes


def test_holes_parts_nuclei_and_flags(tmp_path: Path) -> None:
    hole = [[12, 22], [16, 22], [16, 26], [12, 26], [12, 22]]
    nucleus = {"type": "Polygon", "coordinates": [shifted(SQUARE, 10, 10)]}
    small = shifted([[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]], 70, 50)
    two = {"type": "MultiPolygon", "coordinates": [[small], [SQUARE, hole]]}
    one = feature(nucleusGeometry=nucleus) | {
        "geometry": two,
        "properties": {"objectType": "cell", "metadata": {"smudge": "yes"}},
    }
    (region,), _ = read(tmp_path, collection(one))
    assert region.cell.area_px == 400 - 16
    assert region.nucleus_mask.sum() == 100
    assert region.nucleus_mask[10:, 10:].all()
    assert region.cell.smudge


def test_cells_are_cut_at_the_edge_and_ordered_and_clumps_are_seen(tmp_path: Path) -> None:
    edge, touching = shifted(SQUARE, 60, 0), shifted(SQUARE, 20, 5)
    regions, _ = read(tmp_path, collection(feature(touching), feature(edge), feature(SQUARE)))
    assert [r.cell.left_px for r in regions] == [10, 70, 30]
    assert [r.cell.at_border for r in regions] == [False, True, False]
    assert [r.cell.in_clump for r in regions] == [True, False, True]
    assert regions[1].cell.width_px == 10


def test_frames_and_calls_are_no_cells_and_strange_ids_are_told(tmp_path: Path) -> None:
    frame = feature(SQUARE, properties={"objectType": "annotation", "isLocked": True})
    tile = feature(SQUARE, properties={"objectType": "tile"})
    old = feature(SQUARE, id="PathCellObject")
    regions, notes = read(tmp_path, collection(frame, tile, old))
    assert len(regions) == 1
    assert notes == ("outlines of a.jpg: 1 ids are not UUIDs and were not used",)
    assert len(read(tmp_path, [feature(SQUARE)])[0]) == 1, "a bare list, as older QuPath writes"


def test_an_annotation_around_two_outlines_is_no_cell(tmp_path: Path) -> None:
    drawn = {"properties": {"objectType": "annotation"}}
    around = [[2, 2], [78, 2], [78, 58], [2, 58], [2, 2]]
    far = feature(shifted(SQUARE, 40, 0), **drawn)
    regions, notes = read(tmp_path, collection(feature(around, **drawn), feature(SQUARE), far))
    assert [region.cell.left_px for region in regions] == [10, 50]
    assert not any(region.cell.in_clump for region in regions)
    assert notes == ("outlines of a.jpg: 1 annotations go around other outlines and are no cells",)
    corrected, _ = read(tmp_path, collection(feature(around, **drawn), feature(SQUARE)))
    assert len(corrected) == 2  # around one outline: another opinion of the same cell


def test_masks_do_not_depend_on_how_many_points_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kite = [[5, 3], [70.5, 20], [40, 55.25], [12, 40], [5, 3]]
    hole = [[30, 20], [40, 20], [40, 30], [30, 20]]
    (whole,), _ = read(tmp_path, collection(feature(kite, hole)))
    monkeypatch.setattr("millie.readers.rings._MOST_POINTS", 150)
    (banded,), _ = read(tmp_path, collection(feature(kite, hole)))
    assert np.array_equal(whole.cell_mask, banded.cell_mask)
    assert 0 < whole.cell_mask.sum() < whole.cell_mask.size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (collection(feature(SQUARE[:-1])), "the ring is open"),
        (collection(feature(SQUARE[:2] + SQUARE[:1])), "the ring is open"),
        (collection(feature(shifted(SQUARE, 500, 0))), "lies outside the image of 80 x 60"),
        (collection(feature([[1, 1], [2, None], [3, 3], [1, 1]])), "no list of x, y"),
        ('{"type": "FeatureCollection", "features": [', "not GeoJSON"),
        ("[" * 100_000, "not GeoJSON"),
        ({"type": "Topology"}, "expected a GeoJSON FeatureCollection"),
        (collection(), "no outline of a cell"),
        (collection(feature(SQUARE) | {"geometry": {"type": "Point"}}), "geometry 'Point'"),
        (collection(feature(SQUARE, properties=[1])), "'properties' is no object"),
        (collection(feature() | {"geometry": None}), "geometry None"),
        (collection(feature()), "no coordinates|without a ring"),
        (collection(feature([[1, 1], [float("nan"), 2], [3, 3], [1, 1]])), "lies outside"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read(tmp_path, content)
    assert "outlines of a.jpg" in str(raised.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text(" " * 2_000)
    with pytest.raises(DataError, match="max_file_megabytes"):
        read_outlines(path, "a.jpg", SHAPE, ReadingConfig(max_file_megabytes=0.001))


def cohort(*images: tuple[str, str]) -> Cohort:
    by_patient: dict[str, list[ImageSource]] = {}
    for patient, name in images:
        by_patient.setdefault(patient, []).append(ImageSource(Path(name), name))
    return Cohort("c", tuple(Patient(p, None, tuple(s)) for p, s in by_patient.items()))


def matched(found: Cohort) -> dict[tuple[str, str], str]:
    return {(p.id, s.name): s.outlines.name for p in found.patients for s in p.images if s.outlines}


def test_a_file_is_found_by_the_name_of_its_image(tmp_path: Path) -> None:
    for name in ("a.jpg.geojson", "b.geojson", "P 2.7f0ee5c0ffee/field.png.geojson"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / "P 2.7f0ee5c0ffee").rename(tmp_path / "p3")
    given = cohort(
        ("p1", "x/a.jpg"), ("p1", "x/b.png"), ("p1", "field.png"), ("p3", "y/field.png"),
        ("p3", "c.png"),
    )  # fmt: skip
    assert matched(with_outlines(given, tmp_path)) == {
        ("p1", "x/a.jpg"): "a.jpg.geojson",
        ("p1", "x/b.png"): "b.geojson",
        ("p3", "y/field.png"): "field.png.geojson",
    }


@pytest.mark.parametrize(
    ("images", "name", "message"),
    [
        ([("p1", "a.jpg")], "b.geojson", "goes with no image"),
        ([("p1", "a.jpg"), ("p2", "a.jpg")], "a.geojson", "folder called after the patient"),
        ([("p1", "x/a.jpg"), ("p1", "y/a.jpg")], "p1/a.geojson", "goes with x/a.jpg and with y"),
    ],
)
def test_a_file_that_could_be_anybodys_is_refused(
    images: list[tuple[str, str]], name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(ConfigError, match=message):
        with_outlines(cohort(*images), tmp_path)


def test_no_file_at_all_is_told(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none.geojson"):
        with pytest.raises(MissingFileError, match="no outlines there"):
            with_outlines(cohort(("p1", "a.jpg")), place)


def test_masks_are_those_of_the_ring(tmp_path: Path) -> None:
    angles = np.linspace(0, 2 * np.pi, 60)
    circle = np.column_stack([40 + 15 * np.cos(angles), 30 + 15 * np.sin(angles)])
    circle[-1] = circle[0]
    (region,), _ = read(tmp_path, collection(feature(circle.tolist())))
    assert region.cell.area_px == pytest.approx(np.pi * 15**2, rel=0.01)
