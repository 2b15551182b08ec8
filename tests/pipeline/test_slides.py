"""Whole slides through the method: cells in pixels of level 0, limits, interruption, bad slides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

import millie
from millie.bags.store import BagReader, Store
from millie.config import Config
from millie.pipeline import patient as one_patient
from millie.pipeline.patient import PatientTask, segment_patient
from millie.readers.fields import read_again
from millie.synthetic.slide import SlideConfig, write_slide
from millie.types import Cell, Cohort, Field, Finding, ImageSource, Patient, Place

if TYPE_CHECKING:
    from tests.conftest import DrawnSlide

pytest.importorskip("openslide", reason="pip install 'millie[slides]'")

AS_SLIDES = ["reading.max_field_megapixels=10"]
"""The drawn slide is too large for a field then, as slides are."""
NEAR_PX = 16  # 4 um: within a lymphocyte


@pytest.fixture(scope="module")
def slide_config(tiny_config: Config) -> Config:
    return tiny_config.with_settings(AS_SLIDES)


def one_slide(drawn_slide: DrawnSlide) -> Patient:
    return Patient("p1", None, (ImageSource(drawn_slide.path, "slide.tif"),))


def cores_of(places: list[Place | None]) -> list[tuple[int, int, int, int]]:
    return [place.core for place in places if place]


def test_cells_of_what_was_read_are_found_where_they_lie(drawn_slide: DrawnSlide) -> None:
    config = Config().with_settings(AS_SLIDES)
    found = millie.detect(drawn_slide.path, config=config)
    fields = millie.readers.fields.read_fields(one_slide(drawn_slide).images[0], config.reading)
    cores = cores_of([one.place for one in fields])
    truth = [
        cell for cell in drawn_slide.cells
        if not cell.at_border
        and any(x0 <= cell.x_px < x1 and y0 <= cell.y_px < y1 for x0, y0, x1, y1 in cores)
    ]  # fmt: skip
    places = np.array([(cell.x_px, cell.y_px) for _, cell in found.cells])
    missed = [
        cell for cell in truth
        if np.hypot(*(places - (cell.x_px, cell.y_px)).T).min() > NEAR_PX
    ]  # fmt: skip
    assert len(truth) >= 20
    assert len(missed) <= 0.03 * len(truth)
    assert {name for name, _ in found.cells} == {str(drawn_slide.path)}
    assert len({(round(x), round(y)) for x, y in places}) == found.n_cells


def test_a_slide_is_read_until_its_cells_are_enough(
    drawn_slide: DrawnSlide, tmp_path: Path
) -> None:
    config = Config().with_settings([*AS_SLIDES, "reading.slide_cells=6"])
    steps: list[tuple[int, int]] = []
    found = millie.detect(
        drawn_slide.path, config=config, overlay=tmp_path / "drawn",
        progress=lambda _, done, total: steps.append((done, total)),
    )  # fmt: skip
    assert 6 <= found.n_cells < 20
    (told,) = [p for p in found.problems if p.error == Finding.SLIDE]
    assert told.note
    assert f"whole slide: {found.n_cells} cells in" in told.message
    assert "reading.slide_cells=6" in told.message
    assert steps[-1][0] == steps[-1][1]
    assert len(list((tmp_path / "drawn").glob("*.jpg"))) == steps[-1][0]


def test_a_bag_holds_the_cells_in_pixels_of_the_slide(
    drawn_slide: DrawnSlide, slide_config: Config, tmp_path: Path
) -> None:
    summary = segment_patient(PatientTask(one_slide(drawn_slide), tmp_path, slide_config))
    with BagReader(Store(tmp_path).path_of("p1")) as bag:
        assert bag.n_cells == summary["n_cells"] >= 20
        assert {source.name for source in bag.sources} == {"slide.tif"}
        assert len({source.title for source in bag.sources}) == len(bag.sources) > 3
        for cell in bag.cells:
            place = bag.sources[cell.source].place
            assert place is not None
            assert place.owns(cell)
            back = place.on_slide(place.in_field(cell))
            assert (back.left_px, back.width_px) == (cell.left_px, cell.width_px)
        for record in bag.sources:
            again = read_again(record, drawn_slide.path, slide_config.reading)
            assert again.sha256 == record.sha256
        assert any("whole slide:" in problem.message for problem in bag.meta.problems)


@pytest.mark.parametrize("step", [1.0, 2.0, 3.7])
def test_a_place_maps_there_and_back(step: float) -> None:
    place = Place(1000, 2000, 3700, 3700, step, (1000, 2000, 4700, 5700))
    cell = Cell(0, 10.0, 20.5, 4, 8, 12, 25, 200.0)
    there = place.on_slide(cell)
    assert there.x_px == pytest.approx(1000 + (10 + 0.5) * step - 0.5)
    assert there.area_px == pytest.approx(200 * step**2)
    back = place.in_field(there)
    assert (back.x_px, back.y_px) == (pytest.approx(cell.x_px), pytest.approx(cell.y_px))
    assert (back.left_px, back.top_px, back.width_px, back.height_px) == (4, 8, 12, 25)


def test_an_interrupted_slide_leaves_no_bag_and_the_next_run_makes_the_same_one(
    drawn_slide: DrawnSlide, slide_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    task = PatientTask(one_slide(drawn_slide), tmp_path / "a", slide_config)
    calls = 0

    def dying(one: Field, *rest: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Killed
        return segment(one, *rest)

    segment = one_patient.segment
    monkeypatch.setattr(one_patient, "segment", dying)
    with pytest.raises(Killed):
        segment_patient(task)
    assert Store(tmp_path / "a").files() == []
    monkeypatch.setattr(one_patient, "segment", segment)
    segment_patient(task)
    segment_patient(replace(task, store=tmp_path / "b"))
    first, second = (Store(tmp_path / name).path_of("p1").read_bytes() for name in "ab")
    assert first == second


def test_bad_slides_are_named_and_the_other_patients_go_on(
    drawn_slide: DrawnSlide, bundle: Path, tmp_path: Path
) -> None:
    nothing = dict.fromkeys(("thick", "monolayer", "feathered", "glass"), 0)
    for name, config in {
        "empty": SlideConfig(**{**nothing, "glass": 1}, rows=1),
        "noscale": SlideConfig(**{**nothing, "monolayer": 1}, rows=1, with_scale=False),
    }.items():
        (tmp_path / name).mkdir()
        write_slide(tmp_path / name / "slide.tif", config)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "slide.svs").write_text("no slide")
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "slide.tif").symlink_to(drawn_slide.path)
    good = drawn_slide.path.parent
    folders = [tmp_path / name for name in ("empty", "noscale", "text")]
    calls = millie.predict(
        bundle, [*folders, good], tmp_path / "calls",
        settings=["reading.max_field_megapixels=0.5", "prediction.winners=2"],
    )  # fmt: skip
    assert [one.patient for one in calls.predictions] == [good.name]
    told = {p.patient: p.message for p in calls.problems if p.fatal}
    assert "no monolayer" in told["empty"]
    assert "states no scale" in told["noscale"]
    assert "not a whole slide of a known format" in told["text"]
    drawn = list((tmp_path / "calls").rglob("overlays/*/*.jpg"))
    assert drawn
    assert all("slide" in path.name for path in drawn)
    table = json.loads((tmp_path / "calls" / "predictions.json").read_text())
    assert not any("again" in problem["message"] for problem in table["problems"])


def test_a_slide_of_tissue_is_told_after_a_few_fields(
    drawn_slide: DrawnSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = millie.segmentation.segment

    def refusing(*arguments: object) -> object:
        detection = found(*arguments)  # type: ignore[arg-type]
        return replace(detection, regions=(), diagnostics={"refused": "not a blood film: tissue"})

    monkeypatch.setattr(one_patient, "segment", refusing)
    task = PatientTask(one_slide(drawn_slide), tmp_path, Config().with_settings(AS_SLIDES))
    with pytest.raises(millie.errors.NoCellsError, match=r"none of .* fields .* tissue"):
        segment_patient(task)


def outlined(
    drawn_slide: DrawnSlide, config: Config, middles: list[tuple[float, float]], folder: Path
) -> BagReader:
    """The bag of the slide with a disc of 20 px drawn around each middle."""
    around = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    features = []
    for x, y in middles:
        ring = np.stack([x + 20 * np.cos(around), y + 20 * np.sin(around)], axis=1).tolist()
        geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
        features.append({"type": "Feature", "geometry": geometry, "properties": {}})
    file = folder / "slide.tif.geojson"
    file.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    patient = one_slide(drawn_slide)
    images = (replace(patient.images[0], outlines=file),)
    segment_patient(PatientTask(replace(patient, images=images), folder / "store", config))
    return BagReader(Store(folder / "store").path_of("p1"))


def test_cells_drawn_on_a_slide_are_its_cells_wherever_fields_end(
    drawn_slide: DrawnSlide, slide_config: Config, tmp_path: Path
) -> None:
    """Each once, in pixels of level 0; on the edges of fields too, and beyond slide_cells."""
    segment_patient(PatientTask(one_slide(drawn_slide), tmp_path / "own", slide_config))
    with BagReader(Store(tmp_path / "own").path_of("p1")) as own:
        known = own.cells
        cores = cores_of([source.place for source in own.sources])
    whole = [c for c in known if 30 < c.x_px < 6114 and 30 < c.y_px < 2018]
    found = [(cell.x_px, cell.y_px) for cell in whole[:12]]
    left, top, right, bottom = next(core for core in cores if core[1] > 30 and core[3] < 2018)
    on_edges = [(right + off, (top + bottom) / 2 + 60 * off) for off in (-0.4, 0.0, 0.3)]
    on_edges += [(left, top), (right - 200.0, bottom - 0.1)]
    config = slide_config.with_settings(["reading.slide_cells=3", "reading.slide_fields=2"])
    with outlined(drawn_slide, config, found + on_edges, tmp_path) as bag:
        got = np.array([(cell.x_px, cell.y_px) for cell in bag.cells])
        wanted = np.array(found + on_edges)
        gaps = np.hypot(*(got[:, None] - wanted[None]).transpose(2, 0, 1))
        assert len(got) == len(wanted)
        assert sorted(gaps.argmin(axis=1)) == list(range(len(wanted)))
        assert gaps.min(axis=1).max() < 1.5
        radius = np.sqrt([cell.area_px / np.pi for cell in bag.cells])
        np.testing.assert_allclose(radius, 20, atol=1)
        assert any("17 cells drawn elsewhere" in problem.message for problem in bag.meta.problems)


def test_the_fields_of_a_slide_are_shown_while_it_is_read(
    drawn_slide: DrawnSlide, slide_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By files in the store, so that workers can tell; nothing of them is left."""
    monkeypatch.setattr("millie.pipeline.slide_progress._EVERY_S", 0.01)
    steps: list[tuple[str, int, int]] = []
    cohort = Cohort("c", (one_slide(drawn_slide),))
    millie.segment(
        cohort, tmp_path / "store", slide_config, progress=lambda *step: steps.append(step)
    )
    shown = [(done, total) for what, done, total in steps if what == "fields of slides"]
    assert len({done for done, _ in shown}) > 2
    assert sorted(done for done, _ in shown) == [done for done, _ in shown]
    assert len({total for _, total in shown}) == 1
    assert steps[-1] == ("segment", 1, 1)
    assert {path.suffix for path in (tmp_path / "store").iterdir()} == {".h5", ".json"}


def test_outlines_that_are_not_of_this_slide_are_refused(
    drawn_slide: DrawnSlide, slide_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(millie.errors.NoCellsError, match="lies outside the image of 6144 x 2048"):
        outlined(drawn_slide, slide_config, [(9000.0, 100.0)], tmp_path)


def test_pictures_of_a_slide_may_be_drawn_again_under_pseudonyms(
    drawn_slide: DrawnSlide, tmp_path: Path
) -> None:
    config = Config().with_settings([*AS_SLIDES, "reading.slide_cells=2"])
    for _ in range(2):
        millie.detect(
            drawn_slide.path, config=config, overlay=tmp_path / "drawn",
            pseudonyms=tmp_path / "names.csv",
        )  # fmt: skip
    drawn = list((tmp_path / "drawn").glob("*.jpg"))
    assert drawn
    assert not any("slide" in path.name for path in drawn)
