"""One picture, one cell: whatever the format, the folder and the patient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from millie import pipeline
from millie.bags.store import BagReader, Store
from millie.errors import TrainingError
from millie.pipeline.patient import PatientTask, segment_patient
from millie.synthetic import CellType, draw_cell
from millie.types import Cohort, Finding, ImageKind, ImageSource, Patient, PixelSize

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from millie.config import Config

KINDS = (CellType.LYMPHOCYTE, CellType.MYELOBLAST, CellType.MONOCYTE, CellType.PROMYELOCYTE)


def drawn(seed: int) -> np.ndarray:
    """A single cell at 0.1 um/px, BGR."""
    rng = np.random.default_rng(seed)
    image = draw_cell(KINDS[seed % len(KINDS)], 0.1, 300, rng).image
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def write(folder: Path, name: str, image: np.ndarray) -> ImageSource:
    folder.mkdir(exist_ok=True)
    cv2.imwrite(str(folder / name), image)
    return ImageSource(folder / name, name, ImageKind.CELL, PixelSize(0.1))


def segmented(
    images: Sequence[ImageSource], config: Config, store: Path
) -> tuple[int, list[dict[str, Any]]]:
    summary = segment_patient(PatientTask(Patient("p", None, tuple(images)), store, config))
    assert all(p["note"] and p["error"] == Finding.DUPLICATE for p in summary["problems"])
    return summary["n_cells"], summary["problems"]


def test_the_same_cells_in_three_formats_count_once(tmp_path: Path, tiny_config: Config) -> None:
    config = tiny_config.with_settings(["crops.size_px=224"])
    images = [
        write(tmp_path, f"{seed}.{ending}", drawn(seed))
        for ending in ("jpg", "png", "bmp")
        for seed in range(5)
    ]
    n_cells, notes = segmented(images, config, tmp_path / "store")
    assert n_cells == 5
    told = {note["source"]: note["message"] for note in notes}
    assert len(told) == 10
    assert told["3.png"] == "shows the same cell as 3.jpg: counted once"
    assert told["3.bmp"] == "identical to 3.png: counted once"


def test_a_cell_that_was_turned_and_resized_counts_once(
    tmp_path: Path, tiny_config: Config
) -> None:
    config = tiny_config.with_settings(["crops.size_px=224"])
    image = drawn(0)
    images = [write(tmp_path, "00.png", image)]
    for i in range(1, 12):
        turn = cv2.getRotationMatrix2D((149.5, 149.5), 30 * i, 1)
        turned = cv2.warpAffine(image, turn, (300, 300), borderMode=cv2.BORDER_REPLICATE)
        images.append(write(tmp_path, f"{i:02d}.png", turned))
    half = write(tmp_path, "half.jpg", cv2.resize(image, (150, 150), interpolation=cv2.INTER_AREA))
    images.append(ImageSource(half.path, half.name, half.kind, PixelSize(0.2)))
    n_cells, notes = segmented(images, config, tmp_path / "store")
    assert n_cells + len(notes) == 13
    assert n_cells <= 2
    assert any(note["source"] == "half.jpg" for note in notes)


def test_a_field_that_was_mirrored_gives_no_cell_twice(
    films: Path, tmp_path: Path, tiny_config: Config
) -> None:
    config = tiny_config.with_settings(["crops.size_px=224"])
    (field,) = pipeline.read_cohort(films).patients[0].images
    copy = tmp_path / "mirrored.png"
    cv2.imwrite(str(copy), cv2.flip(cv2.imread(str(field.path)), 1))
    mirrored = ImageSource(copy, "mirrored.png", field.kind, field.pixel_size)
    alone, _ = segmented([field], config, tmp_path / "alone")
    both, (note,) = segmented([field, mirrored], config, tmp_path / "both")
    assert alone <= both <= alone + 1
    assert note["source"] == "mirrored.png"
    assert f"are in {field.name} too: counted once" in note["message"]


def cohort_of(folder: Path, labels: tuple[str | None, str | None]) -> Cohort:
    """Patients ``a`` and ``b``; the second cell of ``a`` lies under ``b`` in another format."""
    own = [write(folder, f"a{i}.png", drawn(i)) for i in range(3)]
    other = [write(folder, f"b{i}.png", drawn(i)) for i in range(4, 6)]
    other.append(write(folder, "copy.bmp", drawn(1)))
    patients = Patient("a", labels[0], tuple(own)), Patient("b", labels[1], tuple(other))
    return Cohort("drawn", patients)


def test_one_picture_under_two_diagnoses_is_told_and_not_trained_on(
    tmp_path: Path, tiny_config: Config
) -> None:
    found = pipeline.segment(
        cohort_of(tmp_path / "images", ("APL", "normal")), tmp_path / "store", tiny_config
    )
    told = {p.patient: p for p in found.failures}
    assert told["a"].message.startswith(
        "1 cell also under patient b (a1.png and copy.bmp show the same cell), with another "
        "diagnosis: APL, there normal"
    )
    assert set(told) == {"a", "b"}
    with pytest.raises(TrainingError, match="patient a: 1 cell also under patient b"):
        pipeline.train(tmp_path / "store", tmp_path / "model", tiny_config)
    with pytest.raises(TrainingError, match="with another diagnosis"):
        pipeline.crossval(tmp_path / "store", tmp_path / "study", tiny_config)


@pytest.mark.parametrize(
    ("labels", "called"), [((None, None), ["a", "b"]), (("APL", "APL"), ["a", "b"])]
)
def test_prediction_tells_that_two_patients_share_a_cell(
    bundle: Path,
    labels: tuple[str | None, str | None],
    called: list[str],
    tmp_path: Path,
    tiny_config: Config,
) -> None:
    store = tmp_path / "store"
    pipeline.segment(cohort_of(tmp_path / "images", labels), store, tiny_config)
    calls = pipeline.predict(bundle, store, tmp_path / "calls")
    assert [one.patient for one in calls.predictions] == called
    shared = [p for p in calls.problems if p.error == Finding.SAME_CELL]
    assert [(p.patient, p.note, p.fatal) for p in shared] == [
        ("a", True, False),
        ("b", True, False),
    ]


def test_prediction_calls_nobody_whose_picture_has_two_diagnoses(
    bundle: Path, films: Path, tmp_path: Path, tiny_config: Config
) -> None:
    two = cohort_of(tmp_path / "images", ("APL", "normal"))
    third = pipeline.read_cohort(films).patients[0]
    store = tmp_path / "store"
    pipeline.segment(Cohort("drawn", (*two.patients, third)), store, tiny_config)
    assert len(Store(store).bags()) == 3
    calls = pipeline.predict(bundle, store, tmp_path / "calls")
    assert [one.patient for one in calls.predictions] == [third.id]
    shared = [p for p in calls.problems if p.error == Finding.SAME_CELL]
    assert {(p.patient, p.fatal) for p in shared} == {("a", True), ("b", True)}


@pytest.mark.realdata
def test_raw_patient_folders_count_each_cell_once(
    data_root: Path, tmp_path: Path, tiny_config: Config
) -> None:
    cohort = pipeline.read_cohort(data_root / "apl_aml/All/Patient_00")
    found = pipeline.segment(cohort, tmp_path, tiny_config.with_settings(["crops.size_px=224"]))
    copies = {p.source: p.message for p in found.problems if p.error == Finding.DUPLICATE}
    twin = next(text for name, text in copies.items() if name.endswith("SMU_15336364.jpg"))
    assert "SMU_15336363.jpg" in twin
    with BagReader(Store(tmp_path).path_of("Patient_00")) as bag:
        digests = [source.sha256 for source in bag.sources]
        assert len(set(digests)) == len(digests)
