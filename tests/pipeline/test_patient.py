"""One patient: images to a bag, nothing lost in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from millie.bags.store import BagReader, Store
from millie.config import Config
from millie.errors import NoCellsError
from millie.pipeline import patient as one_patient
from millie.pipeline import read_cohort
from millie.pipeline.patient import PatientTask, segment_patient
from millie.segmentation import segment
from millie.synthetic import CellType, draw_cell
from millie.types import Finding, ImageKind, ImageSource, Patient, PixelSize


@pytest.fixture
def patient(films: Path) -> Patient:
    return read_cohort([films]).patients[0]


def _bag(store: Path, patient: Patient, config: Config) -> BagReader:
    segment_patient(PatientTask(patient, store, config))
    return BagReader(Store(store).path_of(patient.id))


def test_a_drawn_field_gives_its_cells(
    patient: Patient, tiny_config: Config, tmp_path: Path
) -> None:
    with _bag(tmp_path, patient, tiny_config) as bag:
        assert 5 <= bag.n_cells <= 8  # six are drawn; a smudge may be lost, a platelet clump found
        assert bag.images(0, bag.n_cells).shape[1:] == (32, 32, 3)
        assert bag.label == patient.label
        assert all(cell.area_um2 is not None for cell in bag.cells)
        assert bag.sources[0].kind is ImageKind.FIELD


def test_again_is_skipped_and_other_settings_are_not(
    patient: Patient, tiny_config: Config, tmp_path: Path
) -> None:
    task = PatientTask(patient, tmp_path, tiny_config)
    first = segment_patient(task)
    again = segment_patient(task)
    assert again["skipped"] is True
    assert again["n_cells"] == first["n_cells"]
    other = replace(task, config=tiny_config.with_settings(["crops.size_um=20"]))
    assert "skipped" not in segment_patient(other)


def test_other_code_cuts_the_bag_anew(
    patient: Patient, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = PatientTask(patient, tmp_path, tiny_config)
    segment_patient(task)
    monkeypatch.setattr(one_patient, "code_digest", lambda *_: "another release")
    assert "skipped" not in segment_patient(task)


def test_the_same_images_give_the_same_bytes(
    patient: Patient, tiny_config: Config, tmp_path: Path
) -> None:
    bags = []
    for name in ("a", "b"):
        with _bag(tmp_path / name, patient, tiny_config) as bag:
            bags.append(bag.path.read_bytes())
    assert bags[0] == bags[1]


def test_a_broken_file_is_named_and_the_rest_counts(
    patient: Patient, tiny_config: Config, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    images = (*patient.images, ImageSource(broken, "broken.jpg"))
    summary = segment_patient(
        PatientTask(replace(patient, images=images), tmp_path / "store", tiny_config)
    )
    assert summary["n_cells"] >= 5
    assert [(p["source"], p["error"]) for p in summary["problems"]] == [
        ("broken.jpg", "ImageError")
    ]


def test_a_patient_without_any_cell_says_why(tiny_config: Config, tmp_path: Path) -> None:
    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.full((300, 400, 3), 235, np.uint8))
    source = ImageSource(empty, "empty.png", ImageKind.FIELD, PixelSize(0.12))
    task = PatientTask(Patient("p", "APL", (source,)), tmp_path / "store", tiny_config)
    with pytest.raises(NoCellsError, match="p: no cells in 1 image "):
        segment_patient(task)
    assert not Store(tmp_path / "store").path_of("p").exists()


@pytest.mark.parametrize("um_px", [None, 0.1])
def test_a_single_cell_crop_passes_through_centred(
    um_px: float | None, tiny_config: Config, tmp_path: Path
) -> None:
    drawn = draw_cell(CellType.MYELOBLAST, 0.1, 300, np.random.default_rng(1))
    path = tmp_path / "cell.png"
    cv2.imwrite(str(path), cv2.cvtColor(drawn.image, cv2.COLOR_RGB2BGR))
    size = None if um_px is None else PixelSize(um_px)
    source = ImageSource(path, "cell.png", None, size, cell_label="myeloblast")
    with _bag(tmp_path / "store", Patient("p", None, (source,)), tiny_config) as bag:
        assert bag.n_cells == 1
        cell = bag.cells[0]
        assert abs(cell.x_px - 150) < 20
        assert abs(cell.y_px - 150) < 20
        assert cell.label == "myeloblast"
        assert bag.sources[0].kind is ImageKind.CELL
        centre = bag.image(0)[12:20, 12:20].mean()
        assert centre < bag.image(0)[:3].mean(), "the nucleus is darker than the edge"


def test_smudge_cells_are_left_out_on_demand(tiny_config: Config, tmp_path: Path) -> None:
    drawn = draw_cell(CellType.SMUDGE, 0.1, 300, np.random.default_rng(2))
    path = tmp_path / "cell.png"
    cv2.imwrite(str(path), cv2.cvtColor(drawn.image, cv2.COLOR_RGB2BGR))
    source = ImageSource(path, "cell.png", ImageKind.CELL, PixelSize(0.1))
    patient = Patient("p", None, (source,))
    with _bag(tmp_path / "kept", patient, tiny_config) as bag:
        flagged = sum(cell.smudge for cell in bag.cells)
    config = tiny_config.with_settings(["crops.keep_smudge=false"])
    if flagged:
        with pytest.raises(NoCellsError, match="no cell"):
            segment_patient(PatientTask(patient, tmp_path / "dropped", config))


def test_a_copy_of_an_image_counts_once(
    patient: Patient, tiny_config: Config, tmp_path: Path
) -> None:
    alone = segment_patient(PatientTask(patient, tmp_path / "a", tiny_config))
    copy = tmp_path / "copy.jpg"
    copy.write_bytes(patient.images[0].path.read_bytes())
    images = (*patient.images, replace(patient.images[0], path=copy, name="copy.jpg"))
    task = PatientTask(replace(patient, images=images), tmp_path / "b", tiny_config)
    twice = segment_patient(task)
    assert twice["n_cells"] == alone["n_cells"]
    assert [(p["source"], p["note"]) for p in twice["problems"]] == [("copy.jpg", True)]


def test_a_field_in_which_no_cells_are_looked_for_is_named(
    patient: Patient, tiny_config: Config, tmp_path: Path
) -> None:
    noise = tmp_path / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    cv2.imwrite(str(noise), pixels)
    source = ImageSource(noise, "noise.png", ImageKind.FIELD, PixelSize(0.12))
    images = (*patient.images, source)
    task = PatientTask(replace(patient, images=images), tmp_path / "store", tiny_config)
    summary = segment_patient(task)
    (problem,) = summary["problems"]
    assert (problem["source"], problem["error"]) == ("noise.png", "ImageError")
    assert "not searched for cells (not a blood film" in problem["message"]
    assert summary["n_cells"] >= 5


def test_an_empty_field_without_scale_is_not_blamed_on_the_scale(
    tiny_config: Config, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.bmp"  # not packed, so no decompression bomb
    cv2.imwrite(str(empty), np.full((600, 600, 3), 235, np.uint8))
    source = ImageSource(empty, "empty.bmp", ImageKind.FIELD)
    task = PatientTask(Patient("p", None, (source,)), tmp_path / "store", tiny_config)
    with pytest.raises(NoCellsError, match=r"\(empty\.bmp: not searched for cells") as caught:
        segment_patient(task)
    assert "um/px" not in str(caught.value)


def test_a_slide_gives_all_its_cells(patient: Patient, tiny_config: Config, tmp_path: Path) -> None:
    slide = replace(patient, images=(replace(patient.images[0], kind=ImageKind.SLIDE),))
    assert segment_patient(PatientTask(slide, tmp_path, tiny_config))["n_cells"] >= 5


def test_other_facts_of_the_patient_cut_the_bag_anew(
    patient: Patient, tiny_config: Config, tmp_path: Path
) -> None:
    with _bag(tmp_path, patient, tiny_config) as bag:
        assert bag.patient.split == ""
    with _bag(tmp_path, replace(patient, split="test", site="B"), tiny_config) as bag:
        assert (bag.patient.split, bag.patient.site) == ("test", "B")


def test_a_crop_without_an_outline_is_left_out_on_demand_and_named(
    tiny_config: Config, tmp_path: Path
) -> None:
    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((300, 300, 3), 235, np.uint8))
    drawn = draw_cell(CellType.MYELOBLAST, 0.1, 300, np.random.default_rng(1))
    cell = tmp_path / "cell.png"
    cv2.imwrite(str(cell), cv2.cvtColor(drawn.image, cv2.COLOR_RGB2BGR))
    sources = tuple(
        ImageSource(path, path.name, ImageKind.CELL, PixelSize(0.1)) for path in (blank, cell)
    )
    patient = Patient("p", None, sources)
    config = tiny_config.with_settings(["crops.keep_unoutlined=true"])
    kept = segment_patient(PatientTask(patient, tmp_path / "kept", config))
    assert (kept["n_cells"], kept["problems"]) == (2, [])
    left = segment_patient(PatientTask(patient, tmp_path / "left", tiny_config))
    assert left["n_cells"] == 1
    assert [(p["source"], p["note"]) for p in left["problems"]] == [("blank.png", True)]


BLANK = np.full((300, 300, 3), 235, np.uint8)


def grey_cell() -> np.ndarray:
    drawn = draw_cell(CellType.MYELOBLAST, 0.1, 300, np.random.default_rng(1))
    return np.repeat(cv2.cvtColor(drawn.image, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def cell_in_a_corner() -> np.ndarray:
    drawn = draw_cell(CellType.MYELOBLAST, 0.1, 300, np.random.default_rng(1))
    cell = cv2.cvtColor(drawn.image, cv2.COLOR_RGB2BGR)[30:270, 30:270]
    return cv2.copyMakeBorder(cell, 0, 160, 0, 160, cv2.BORDER_CONSTANT, value=(232, 232, 236))


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (BLANK, "left out: no stained cells: the image is empty"),
        (grey_cell(), "left out: greyscale: colour is needed to tell leukocytes from red cells"),
        (grey_cell()[:9, :9], "left out: too small: 9 x 9 px are 0.9 um, less than a cell"),
        (BLANK[:28, :28], "left out: too small: 28 x 28 px are 2.8 um, less than a cell"),
        (
            cell_in_a_corner(),
            "left out: no cell in its middle; if it is a field of view, give kind",
        ),
    ],
)
def test_a_single_cell_image_that_gives_no_cell_says_why(
    image: np.ndarray, why: str, tiny_config: Config, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "none.bmp"), image)
    source = ImageSource(tmp_path / "none.bmp", "none.bmp", ImageKind.CELL, PixelSize(0.1))
    task = PatientTask(Patient("p", None, (source,)), tmp_path / "store", tiny_config)
    with pytest.raises(NoCellsError) as caught:
        segment_patient(task)
    assert why in str(caught.value)


def test_a_smudge_that_the_settings_leave_out_is_called_one(
    patient: Patient, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def smudges(*arguments: Any) -> Any:
        found = segment(*arguments)
        regions = [replace(r, cell=replace(r.cell, smudge=True)) for r in found.regions]
        return replace(found, regions=tuple(regions))

    monkeypatch.setattr(one_patient, "segment", smudges)
    drawn = draw_cell(CellType.MYELOBLAST, 0.1, 300, np.random.default_rng(1))
    cv2.imwrite(str(tmp_path / "cell.png"), cv2.cvtColor(drawn.image, cv2.COLOR_RGB2BGR))
    source = ImageSource(tmp_path / "cell.png", "cell.png", ImageKind.CELL, PixelSize(0.1))
    config = tiny_config.with_settings(["crops.keep_smudge=false"])
    with pytest.raises(NoCellsError, match=r"a smudge cell \(crops\.keep_smudge=false\)"):
        segment_patient(PatientTask(Patient("p", None, (source,)), tmp_path / "store", config))


@pytest.mark.parametrize(
    ("kind", "um_px", "label", "read_as"),
    [
        (None, 0.1, None, ImageKind.FIELD),
        (None, 0.1, "blast", None),
        (ImageKind.CELL, 0.1, None, None),
    ],
)
def test_a_small_field_is_known_by_where_its_cells_lie(
    kind: ImageKind | None,
    um_px: float,
    label: str | None,
    read_as: ImageKind | None,
    tiny_config: Config,
    tmp_path: Path,
) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), cell_in_a_corner())
    source = ImageSource(tmp_path / "small.png", "small.png", kind, PixelSize(um_px), label)
    task = PatientTask(Patient("p", None, (source,)), tmp_path / "store", tiny_config)
    if read_as is None:
        with pytest.raises(NoCellsError, match="no cell in its middle"):
            segment_patient(task)
        return
    (problem,) = segment_patient(task)["problems"]
    assert (problem["error"], problem["note"]) == (Finding.OVERVIEW, True)
    with BagReader(Store(tmp_path / "store").path_of("p")) as bag:
        assert [s.kind for s in bag.sources] == [read_as]
        assert bag.n_cells == 1


@pytest.mark.realdata
@pytest.mark.parametrize(("folder", "least"), [("bccd/JPEGImages", 28), ("aria_all/Pre", 150)])
def test_fields_as_small_as_crops_keep_their_cells(
    folder: str, least: int, data_root: Path, tmp_path: Path
) -> None:
    sources = []
    for path in sorted((data_root / folder).iterdir())[:30]:
        small = cv2.imread(str(path))
        scale = min(320 / small.shape[1], 240 / small.shape[0])
        small = cv2.resize(small, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / f"{path.stem}.png"), small)
        sources.append(ImageSource(tmp_path / f"{path.stem}.png", f"{path.stem}.png"))
    task = PatientTask(Patient("p", None, tuple(sources)), tmp_path / "store", Config())
    assert segment_patient(task)["n_cells"] >= least
