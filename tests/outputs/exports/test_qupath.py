"""GeoJSON by QuPath's rules, with valid rings; and places that are never written over."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millie.errors import ConfigError, DataError, MissingFileError
from millie.outputs.exports.outlines import crop_place, rings_of
from millie.outputs.exports.qupath import export_qupath, file_names
from millie.outputs.exports.samples import Exported, read_run
from millie.outputs.exports.target import new_folder

from .conftest import FAILED, STATES


@pytest.fixture(scope="module")
def folder(called: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("qupath") / "outlines"
    assert export_qupath(called, out) == Exported(3, (FAILED,))
    return out


def features_of(folder: Path) -> list[dict[str, Any]]:
    return [
        feature
        for path in sorted(folder.rglob("*.geojson"))
        for feature in json.loads(path.read_text())["features"]
    ]


def test_every_cell_of_the_run_is_there_once(called: Path, folder: Path) -> None:
    _, samples = read_run(called)
    n_cells = sum(len(sample.cells) for sample in samples)
    features = features_of(folder)
    cells = [f for f in features if f["properties"]["objectType"] == "cell"]
    assert len(cells) == n_cells > 10
    assert len({f["id"] for f in features}) == len(features)
    assert all(str(uuid.UUID(f["id"])) == f["id"] for f in features)


def test_what_qupath_refuses_does_not_occur(folder: Path) -> None:
    for feature in features_of(folder):
        assert feature["type"] == "Feature"
        properties = feature["properties"]
        colour = properties["classification"]["color"]
        assert len(colour) == 3
        assert all(isinstance(c, int) and 0 <= c <= 255 for c in colour)
        assert all(isinstance(v, float | int) for v in properties["measurements"].values())
        assert all(isinstance(v, str) for v in properties["metadata"].values())
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]


def test_rings_are_valid_and_lie_around_their_cells(called: Path, folder: Path) -> None:
    shapely = pytest.importorskip("shapely.geometry", reason="needs shapely (extra dev)")
    _, samples = read_run(called)
    cells = iter(
        [
            (cell, crop_place(cell, sample.sources[cell.source], sample.meta)[1])
            for sample in samples
            for cell in sample.cells
        ]
    )
    for feature in features_of(folder):
        outline = shapely.shape(feature["geometry"])
        assert outline.is_valid
        if feature["properties"]["objectType"] == "annotation":
            continue
        cell, mask_px = next(cells)  # the fixture's masks are coarse
        assert outline.area == pytest.approx(cell.area_px, rel=0.06)
        off = outline.centroid.x - cell.x_px, outline.centroid.y - cell.y_px
        assert np.hypot(*off) < mask_px / 2
        nucleus = shapely.shape(feature["nucleusGeometry"])
        assert nucleus.is_valid
        assert outline.buffer(mask_px).contains(nucleus)


@pytest.mark.parametrize("seed", range(5))
def test_rings_of_any_mask_are_valid(seed: int) -> None:
    shapely = pytest.importorskip("shapely.geometry", reason="needs shapely (extra dev)")
    mask = np.random.default_rng(seed).random((40, 40)) < 0.5  # parts that touch at corners
    rings = [shapely.Polygon(ring) for ring in rings_of(mask, (5.0, 7.0), 1.3)]
    assert rings
    assert all(ring.is_valid and ring.area > 0 for ring in rings)
    areas = np.array([ring.area for ring in rings])
    assert np.diff(areas).max() < 1e-9, "the largest part comes first"


def test_a_square_has_its_own_edges_and_no_hole() -> None:
    mask = np.zeros((6, 6), np.bool_)
    mask[1:5, 2:6] = True
    mask[2, 3] = False
    (ring,) = rings_of(mask, (10.0, 20.0), 2.0)
    np.testing.assert_array_equal(ring.min(axis=0), [10 + 2 * 2, 20 + 2 * 1])
    np.testing.assert_array_equal(ring.max(axis=0), [10 + 2 * 6, 20 + 2 * 5])
    assert rings_of(np.zeros((4, 4), np.bool_), (0.0, 0.0), 1.0) == []


def test_a_call_is_told_as_it_is(folder: Path) -> None:
    calls = [f["properties"] for f in features_of(folder) if f["properties"].get("isLocked")]
    assert [c["metadata"]["state"] for c in calls] == list(STATES)
    for call in calls:
        assert call["classification"]["name"] == f"call: {call['metadata']['state']}"
        assert "Preliminary" in call["metadata"]["status"]
        assert "research use only" in call["metadata"]["intended use"]
        assert "tells APL from other AML" in call["metadata"]["what the model can tell"]
    told = calls[1]["metadata"]
    assert told["reasons"] == "6 cells: at least 50 are needed. Photograph more cells."
    assert told["codes"] == "TOO_FEW_CELLS"


def test_names_of_two_images_never_fall_together() -> None:
    names = file_names(["a/field.jpg", "b/FIELD.jpg", "c/other.tif"])
    assert names[2] == "other.tif.geojson"
    assert len({name.lower() for name in names}) == 3


def test_one_file_is_for_one_image(called: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has 3 images"):
        export_qupath(called, tmp_path / "all.geojson")
    assert not list(tmp_path.iterdir())


def test_nothing_is_replaced(called: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    export_qupath(called, out)
    corrected = next(out.rglob("*.geojson"))
    corrected.write_text("mine")
    with pytest.raises(ConfigError, match="is not replaced"):
        export_qupath(called, out)
    assert corrected.read_text() == "mine"


def test_what_is_no_run_is_told(called: Path, tmp_path: Path, tiny_store: Path) -> None:
    with pytest.raises(MissingFileError, match="holds no calls"):
        export_qupath(tiny_store, tmp_path / "out")
    moved = shutil.copytree(called, tmp_path / "moved" / "calls")
    with pytest.raises(MissingFileError, match="put the store back"):
        export_qupath(moved, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def copied(called: Path, folder: Path) -> Path:
    """A copy of the run whose bags stay where they are."""
    run, _ = read_run(called)
    content = json.loads((called / "predictions.json").read_text()) | {"store": str(run.store)}
    (shutil.copytree(called, folder) / "predictions.json").write_text(json.dumps(content))
    return folder


def test_a_store_that_was_cut_anew_is_not_believed(called: Path, tmp_path: Path) -> None:
    changed = copied(called, tmp_path / "calls")
    table = (changed / "cells.csv").read_text(encoding="utf-8-sig").split("\n")
    row = table[1].split(",")
    table[1] = ",".join([row[0], row[1], "1.0", *row[3:]])
    (changed / "cells.csv").write_text("\n".join(table))
    with pytest.raises(DataError, match="cut anew"):
        export_qupath(changed, tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


def test_a_cell_that_is_like_no_class_says_so(called: Path, tmp_path: Path) -> None:
    changed = copied(called, tmp_path / "calls")
    head, *rows = (changed / "cells.csv").read_text(encoding="utf-8-sig").rstrip().split("\n")
    own = [i for i, name in enumerate(head.split(",")) if name.startswith("probability_")]
    cells = [row.split(",") for row in rows]
    for cell in cells:
        for i in own:
            cell[i] = "0.1"
    (changed / "cells.csv").write_text("\n".join([head, *map(",".join, cells)]) + "\n")
    export_qupath(changed, tmp_path / "out")
    told = [f["properties"] for f in features_of(tmp_path / "out")]
    kinds = {p["classification"]["name"] for p in told if p["objectType"] == "cell"}
    assert kinds == {"Other"}


def test_a_full_disk_names_what_was_asked_for_and_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "outlines"

    def fill() -> None:
        with new_folder(out) as new:
            (new / "a.geojson").write_text("half")
            raise OSError(28, "No space left on device", str(new / "b.geojson"))

    with pytest.raises(OSError, match="No space left") as raised:
        fill()
    assert raised.value.filename == str(out)
    assert not list(tmp_path.iterdir())
