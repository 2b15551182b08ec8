"""Outlines drawn elsewhere become the cells of their image; a bad file costs its image alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from millie import pipeline
from millie.bags.store import BagReader
from millie.config import Config
from millie.outputs.exports.outlines import cell_outlines
from millie.outputs.exports.samples import Sample
from millie.outputs.patient.records import PatientResult


def sample_of(path: Path) -> Sample:
    with BagReader(path) as bag:
        result = PatientResult(bag.patient_id, "INDETERMINATE")
        scores = np.zeros((bag.n_cells, 1), np.float32)
        return Sample(result, bag.sources, tuple(bag.cells), scores, path, bag.meta)


def write_outlines(path: Path, sample: Sample, kept: slice) -> None:
    """The outlines of a sample's first image, without those of nuclei."""
    features = [
        {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring.tolist()]},
         "properties": {"objectType": "cell"}}
        for cell, (ring, _) in zip(sample.cells, cell_outlines(sample), strict=True)
        if cell.source == 0
    ]  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features[kept]}))


def test_drawn_cells_replace_those_found_and_are_cut_alike(
    two_folders: list[Path], tiny_config: Config, tmp_path: Path
) -> None:
    found = pipeline.segment(two_folders, tmp_path / "found", tiny_config)
    first = tmp_path / "found" / "a.h5"
    drawn = tmp_path / "drawn" / "a"
    drawn.mkdir(parents=True)
    write_outlines(drawn / "field.jpg.geojson", sample_of(first), slice(1, None))
    again = pipeline.segment(
        two_folders, tmp_path / "again", tiny_config, outlines=tmp_path / "drawn"
    )
    assert again.cells == {"a": found.cells["a"] - 1, "b": found.cells["b"]}
    with BagReader(first) as old, BagReader(tmp_path / "again" / "a.h5") as new:
        file = (drawn / "field.jpg.geojson").read_bytes()
        told = new.sources[0].diagnostics["outlines_sha256"]
        assert told == hashlib.sha256(file).hexdigest()
        for mine, theirs in zip(new.cells, old.cells[1:], strict=True):
            assert np.hypot(mine.x_px - theirs.x_px, mine.y_px - theirs.y_px) < 1
            assert mine.area_um2 == pytest.approx(theirs.area_um2, rel=0.03)
        both = new.masks(0, 99) > 0, old.masks(1, 99) > 0
        overlap = (both[0] & both[1]).sum() / (both[0] | both[1]).sum()
        nuclei = (new.masks(0, 99) == 2).sum() / (old.masks(1, 99) == 2).sum()
    assert overlap > 0.95
    assert nuclei > 0.95, "nuclei that were not drawn are those found within the outlines"


def test_a_changed_file_cuts_the_bag_anew_and_an_unchanged_one_does_not(
    two_folders: list[Path], tiny_config: Config, tmp_path: Path
) -> None:
    store, drawn = tmp_path / "store", tmp_path / "field.geojson"
    one = two_folders[0]
    n = pipeline.segment(one, tmp_path / "found", tiny_config).n_cells
    sample = sample_of(tmp_path / "found" / "a.h5")
    write_outlines(drawn, sample, slice(0, 2))
    assert pipeline.segment(one, store, tiny_config, outlines=drawn).n_cells == 2
    assert pipeline.segment(one, store, tiny_config, outlines=drawn).skipped == 1
    write_outlines(drawn, sample, slice(0, 3))
    assert pipeline.segment(one, store, tiny_config, outlines=drawn).n_cells == 3
    assert pipeline.segment(one, store, tiny_config).n_cells == n


def test_a_bad_file_costs_its_patient_and_the_others_go_on(
    two_folders: list[Path], tiny_config: Config, tmp_path: Path
) -> None:
    drawn = tmp_path / "drawn" / "a"
    drawn.mkdir(parents=True)
    (drawn / "field.jpg.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    done = pipeline.segment(
        two_folders, tmp_path / "store", tiny_config, outlines=tmp_path / "drawn"
    )
    assert list(done.cells) == ["b"]
    (failure,) = done.failures
    assert "no outline of a cell" in failure.message


@pytest.mark.realdata
def test_outlines_of_a_real_field_come_back_as_they_went(data_root: Path, tmp_path: Path) -> None:
    image = tmp_path / "p" / "field.jpg"
    image.parent.mkdir()
    image.write_bytes((data_root / "all_idb1" / "im" / "Im005_1.jpg").read_bytes())
    pipeline.segment(image.parent, tmp_path / "found")
    drawn = tmp_path / "field.geojson"
    write_outlines(drawn, sample_of(tmp_path / "found" / "p.h5"), slice(None))
    pipeline.segment(image.parent, tmp_path / "again", outlines=drawn)
    with BagReader(tmp_path / "found" / "p.h5") as old, BagReader(tmp_path / "again/p.h5") as new:
        assert new.n_cells == old.n_cells > 5
        order = [np.argsort([cell.x_px for cell in bag.cells]) for bag in (new, old)]
        both = new.masks(0, 99)[order[0]] > 0, old.masks(0, 99)[order[1]] > 0
    overlap = (both[0] & both[1]).sum(axis=(1, 2)) / (both[0] | both[1]).sum(axis=(1, 2))
    assert overlap.min() > 0.95  # of a cell in two parts the larger one is exported
    assert np.median(overlap) > 0.995
