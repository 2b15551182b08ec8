"""A cohort on disk: reproducible, complete, without leaks."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from millie.errors import ConfigError
from millie.synthetic import (
    DISEASES,
    NORMAL_DIFFERENTIAL,
    CellType,
    CohortConfig,
    FilmConfig,
    write_cohort,
    write_configured_cohort,
)
from millie.synthetic import cohort as cohort_module

if TYPE_CHECKING:
    from pathlib import Path

TINY = CohortConfig(n_per_class=2, cells_per_patient=4, cells_per_field=(2, 4), seed=5,
                    film=FilmConfig(width_px=300, height_px=240, um_px=0.2))  # fmt: skip


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_configured_cohort(tmp_path_factory.mktemp("cohort") / "demo", TINY)


def test_manifest_names_every_file_once(written: Path) -> None:
    rows = table(written)
    assert list(rows[0]) == ["patient", "label", "path", "kind", "um_px"]
    files = {p.relative_to(written.parent).as_posix() for p in written.parent.rglob("*.jpg")}
    assert {row["path"] for row in rows} == files
    assert len(rows) == len(files)
    assert {row["kind"] for row in rows} == {"field"}
    assert {float(row["um_px"]) for row in rows} == {0.2}
    labels = {row["patient"]: row["label"] for row in rows}
    assert sorted(labels.values()) == sorted(list(DISEASES) * 2)


def test_truth_names_every_leukocyte_inside_its_image(written: Path) -> None:
    truth = table(written.parent / "truth.csv")
    for row in table(written):
        image = cv2.imread(str(written.parent / row["path"]))
        assert image is not None
        assert image.shape == (240, 300, 3)
        cells = [cell for cell in truth if cell["file"] == row["path"]]
        assert 2 <= len(cells) <= 4
        for cell in cells:
            assert 0 <= float(cell["x_px"]) < 300
            assert 0 <= float(cell["y_px"]) < 240
            assert int(cell["left_px"]) + int(cell["width_px"]) <= 300
            assert int(cell["top_px"]) + int(cell["height_px"]) <= 240
            assert cell["type"] in set(CellType)


def test_nothing_in_names_or_order_tells_the_diagnosis(written: Path) -> None:
    rows = table(written)
    for row in rows:
        text = row["patient"] + row["path"]
        assert not any(label.lower() in text.lower() for label in DISEASES)
    order = list({row["patient"]: row["label"] for row in rows}.values())
    assert order != sorted(order)
    blocks = [list(labels) for labels in zip(order[::2], order[1::2], strict=True)]
    assert any(len(set(block)) > 1 for block in blocks), "patients are not sorted by label"


def test_same_seed_same_bytes(written: Path, tmp_path: Path) -> None:
    again = write_configured_cohort(tmp_path / "again", TINY)
    first = {p.relative_to(written.parent): p.read_bytes()
             for p in written.parent.rglob("*") if p.is_file()}  # fmt: skip
    second = {p.relative_to(again.parent): p.read_bytes()
              for p in again.parent.rglob("*") if p.is_file()}  # fmt: skip
    assert first == second


def test_styles_and_sizes_do_not_depend_on_the_diagnosis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[tuple[Any, int]]] = {}
    drawn: list[tuple[Any, int]] = []
    real = cohort_module.draw_field

    def spy(config: FilmConfig, composition: dict[CellType, int], rng: np.random.Generator) -> Any:
        drawn.append((config.style, sum(composition.values())))
        return real(config, composition, rng)

    monkeypatch.setattr(cohort_module, "draw_field", spy)
    for label in ("normal", "APL"):
        drawn.clear()
        write_configured_cohort(tmp_path / label, replace(TINY, labels=(label,)))
        seen[label] = list(drawn)
    assert seen["normal"] == seen["APL"]
    assert len({style for style, _ in seen["normal"]}) == 2, "one style a patient"


def test_png_keeps_the_pixels_that_were_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[np.ndarray] = []
    real = cohort_module.draw_field

    def spy(*args: Any) -> Any:
        field = real(*args)
        images.append(field.image)
        return field

    monkeypatch.setattr(cohort_module, "draw_field", spy)
    config = replace(TINY, labels=("ALL",), n_per_class=1, image_format="png")
    manifest = write_configured_cohort(tmp_path / "png", config)
    for row, image in zip(table(manifest), images, strict=True):
        read = cv2.imread(str(manifest.parent / row["path"]))
        assert read is not None
        assert np.array_equal(read[..., ::-1], image)


def test_a_broken_run_leaves_no_cohort_and_the_next_one_succeeds(tmp_path: Path) -> None:
    def stop(what: str, done: int, total: int) -> None:
        assert (what, total) == ("drawing", 8)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_configured_cohort(tmp_path / "demo", TINY, stop)
    assert not (tmp_path / "demo").exists()
    assert write_configured_cohort(tmp_path / "demo", TINY).is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no cohort"):
        write_configured_cohort(tmp_path, TINY)
    assert (tmp_path / "kept.txt").read_text() == "mine"


@pytest.mark.parametrize("label", DISEASES)
def test_differentials_are_shares_and_leukaemias_have_their_cells(label: str) -> None:
    rng = np.random.default_rng(0)
    disease = DISEASES[label]
    for _ in range(50):
        shares = disease.differential(rng)
        assert set(shares) == set(CellType)
        assert min(shares.values()) >= 0
        assert sum(shares.values()) == pytest.approx(1)
        blasts = sum(shares[kind] for kind in disease.malignant)
        assert blasts == 0 or blasts >= 0.2, "at least 20 % by the WHO classification"
    if label == "normal":
        assert all(shares[kind] == 0 for kind in set(CellType) - set(NORMAL_DIFFERENTIAL))


def test_normal_differential_lies_in_the_reference_ranges() -> None:
    assert sum(NORMAL_DIFFERENTIAL.values()) == pytest.approx(1)
    assert 0.4 <= NORMAL_DIFFERENTIAL[CellType.SEGMENTED_NEUTROPHIL] <= 0.8
    assert 0.2 <= NORMAL_DIFFERENTIAL[CellType.LYMPHOCYTE] <= 0.4
    assert 0.02 <= NORMAL_DIFFERENTIAL[CellType.MONOCYTE] <= 0.1
    assert NORMAL_DIFFERENTIAL[CellType.BASOPHIL] <= 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [({"labels": ("CLL",)}, "unknown diagnosis 'CLL'"), ({"labels": ()}, "at least one"),
     ({"n_per_class": 0}, "at least one"), ({"seed": -1}, "seed of at least 0"),
     ({"cells_per_field": (0, 2)}, "cells_per_field="),
     ({"cells_per_field": (3, 2)}, "cells_per_field="), ({"prefix": "../x"}, "prefix"),
     ({"image_format": "gif"}, "expected jpg or png")],
)  # fmt: skip
def test_wrong_settings_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(TINY, **change)


def test_a_finished_cohort_is_kept_and_other_settings_are_refused(tmp_path: Path) -> None:
    config = replace(TINY, labels=("normal",), n_per_class=1)
    manifest = write_configured_cohort(tmp_path / "demo", config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert write_configured_cohort(tmp_path / "demo", config) == manifest
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    with pytest.raises(ConfigError, match="other settings"):
        write_configured_cohort(tmp_path / "demo", replace(config, seed=6))


def test_every_patient_has_the_cells_that_were_asked_for(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path / "demo", 1, 3, cells_per_patient=40, prefix="new")
    patient_of = {row["path"]: row["patient"] for row in table(manifest)}
    cells = [patient_of[row["file"]] for row in table(manifest.parent / "truth.csv")]
    assert set(cells) == {"new001", "new002", "new003", "new004"}
    assert all(40 <= cells.count(patient) < 40 + 32 for patient in set(cells))


def test_every_setting_changes_the_digest() -> None:
    changes: dict[str, Any] = {
        "n_per_class": 3, "seed": 6, "cells_per_patient": 5, "cells_per_field": (2, 5),
        "labels": ("ALL",), "prefix": "x", "film": FilmConfig(), "image_format": "png",
    }  # fmt: skip
    digests = {replace(TINY, **{name: value}).digest() for name, value in changes.items()}
    assert len(digests | {TINY.digest()}) == len(changes) + 1
