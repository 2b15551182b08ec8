"""A synthetic cohort on disk: fields of patients with known diagnoses, manifest and truth.

Owns what blood of each diagnosis contains and the files. Styles are drawn apart from diagnoses,
numbers of fields and cells likewise, and patients are numbered in random order: nothing but the
cells tells the diagnosis.

Source: normal differential count: B. J. Bain et al., Dacie and Lewis Practical Haematology, 12th
ed. (2017), ch. 2 (neutrophils 40-80, lymphocytes 20-40, monocytes 2-10, eosinophils 1-6, basophils
below 2 %). Leukaemias: at least 20 % blasts, WHO Classification of Haematolymphoid Tumours, 5th
ed. (2024), and abnormal promyelocytes as their equivalents in APL; here residual normal blood is
mixed with them in a share that varies between patients.
"""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from millie.errors import ConfigError
from millie.synthetic.film import FilmConfig, draw_field
from millie.synthetic.leukocytes import CellType
from millie.synthetic.stain import draw_style

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from millie.synthetic.film import SyntheticField

MANIFEST_NAME = "manifest.csv"
TRUTH_NAME = "truth.csv"
MANIFEST_COLUMNS = ("patient", "label", "path", "kind", "um_px")
TRUTH_COLUMNS = ("file", "type", "x_px", "y_px", "left_px", "top_px", "width_px", "height_px",
                 "area_px", "at_border")  # fmt: skip

NORMAL_DIFFERENTIAL: Mapping[CellType, float] = {
    CellType.SEGMENTED_NEUTROPHIL: 0.56,
    CellType.BAND_NEUTROPHIL: 0.03,
    CellType.LYMPHOCYTE: 0.29,
    CellType.MONOCYTE: 0.065,
    CellType.EOSINOPHIL: 0.025,
    CellType.BASOPHIL: 0.005,
    CellType.SMUDGE: 0.025,
}
"""Shares of leukocytes in normal blood; smudge cells as films of it show them."""

_CONCENTRATION = 60.0  # of the Dirichlet law: a neutrophil share of 0.56 varies by 0.06


@dataclass(frozen=True, slots=True)
class Disease:
    """Leukocytes in the blood of one diagnosis.

    Attributes:
        malignant: shares among the malignant cells; sums to 1, empty for normal blood.
        share: range of the malignant cells among all leukocytes.
    """

    malignant: Mapping[CellType, float]
    share: tuple[float, float]

    def differential(self, rng: np.random.Generator) -> dict[CellType, float]:
        """Shares of the types in one patient's blood; they sum to 1."""
        share = rng.uniform(*self.share)
        result = dict.fromkeys(CellType, 0.0)
        for mixture, weight in ((NORMAL_DIFFERENTIAL, 1 - share), (self.malignant, share)):
            if mixture and weight > 0:
                part = rng.dirichlet(_CONCENTRATION * np.array(list(mixture.values())))
                for kind, value in zip(mixture, part.tolist(), strict=True):
                    result[kind] += weight * value
        return result


DISEASES: Mapping[str, Disease] = {
    "normal": Disease({}, (0.0, 0.0)),
    "ALL": Disease({CellType.LYMPHOBLAST: 0.95, CellType.SMUDGE: 0.05}, (0.3, 0.9)),
    "AML": Disease(
        {CellType.MYELOBLAST: 0.88, CellType.PROMYELOCYTE: 0.06, CellType.SMUDGE: 0.06},
        (0.3, 0.9),
    ),
    "APL": Disease(
        {CellType.APL_PROMYELOCYTE: 0.86, CellType.MYELOBLAST: 0.08, CellType.SMUDGE: 0.06},
        (0.3, 0.9),
    ),
}
"""What can be drawn, by label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortConfig:
    """Size of a cohort and of its fields.

    Attributes:
        n_per_class: patients of each label, at least 1.
        labels: of :data:`DISEASES`.
        fields: range of the number of fields of a patient.
        cells: range of the number of leukocytes of a field.
        film: settings of the fields; its style is replaced by each patient's.
        image_format: of the files; PNG keeps the pixels that were drawn, artefacts included.
        seed: of everything.

    Raises:
        ConfigError: an unknown label, an empty or descending range, or fewer than one patient.
    """

    n_per_class: int = 7
    labels: tuple[str, ...] = tuple(DISEASES)
    fields: tuple[int, int] = (3, 4)
    cells: tuple[int, int] = (20, 32)
    film: FilmConfig = field(default_factory=FilmConfig)
    image_format: Literal["jpg", "png"] = "jpg"
    seed: int = 0

    def __post_init__(self) -> None:
        for label in self.labels:
            if label not in DISEASES:
                known = ", ".join(DISEASES)
                raise ConfigError(f"unknown diagnosis '{label}'; expected one of: {known}")
        for name in ("fields", "cells"):
            low, high = getattr(self, name)
            if not 1 <= low <= high:
                raise ConfigError(
                    f"CohortConfig.{name}=({low}, {high}): expected 1 <= lowest <= highest"
                )
        if self.n_per_class < 1 or not self.labels:
            raise ConfigError(
                f"{self.n_per_class} patients of {len(self.labels)} diagnoses: expected at "
                "least one of each"
            )
        if self.image_format not in {"jpg", "png"}:
            raise ConfigError(f"image format '{self.image_format}': expected jpg or png")


def write_cohort(
    folder: Path, config: CohortConfig, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Draw a cohort into a new folder.

    ``manifest.csv`` (patient, label, path, kind, um_px), ``truth.csv`` (a row a leukocyte) and
    ``images/<patient>/field_<n>.<format>``. The folder appears only when all is written: a run
    that is broken off leaves ``.<name>.partial`` beside it, which the next one replaces.

    Args:
        folder: does not exist yet, or is empty.
        config: size and seed; the same, the same files to the byte.
        progress: called with (patients done, patients) after each.

    Returns:
        Path of the manifest.

    Raises:
        ConfigError: the folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} exists and is not empty: name a new folder or empty it")
    place = folder.resolve()
    partial = place.parent / f".{place.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    _write_all(partial, config, progress)
    partial.replace(place)
    return folder / MANIFEST_NAME


def _write_all(
    root: Path, config: CohortConfig, progress: Callable[[int, int], None] | None
) -> None:
    order, *seeds = np.random.SeedSequence(config.seed).spawn(
        1 + config.n_per_class * len(config.labels)
    )
    labels = np.repeat(config.labels, config.n_per_class)
    np.random.default_rng(order).shuffle(labels)
    manifest: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for number, (label, seed) in enumerate(zip(labels.tolist(), seeds, strict=True), start=1):
        patient = f"P{number:03d}"
        for path, drawn in _write_patient(root, patient, DISEASES[label], config, seed):
            manifest.append({"patient": patient, "label": label, "path": path, "kind": "field",
                             "um_px": drawn.um_px})  # fmt: skip
            truth += _truth_rows(path, drawn)
        if progress is not None:
            progress(number, len(seeds))
    _write_table(root / TRUTH_NAME, TRUTH_COLUMNS, truth)
    _write_table(root / MANIFEST_NAME, MANIFEST_COLUMNS, manifest)


def _write_patient(
    root: Path, patient: str, disease: Disease, config: CohortConfig, seed: np.random.SeedSequence
) -> list[tuple[str, SyntheticField]]:
    """Draw and write a patient's fields; return path relative to the root, and truth."""
    # Four streams: what one draws leaves the others where they were.
    look, amount, blood, drawing = (np.random.default_rng(child) for child in seed.spawn(4))
    style = draw_style(look)
    quality = style.jpeg_quality
    if config.image_format == "jpg":  # the file itself is compressed, once
        style = replace(style, jpeg_quality=0)
    film = replace(config.film, style=style)
    differential = disease.differential(blood)
    (root / "images" / patient).mkdir(parents=True)
    result = []
    for index in range(1, int(amount.integers(config.fields[0], config.fields[1] + 1)) + 1):
        n = int(amount.integers(config.cells[0], config.cells[1] + 1))
        counts = blood.multinomial(n, list(differential.values())).tolist()
        drawn = draw_field(film, dict(zip(differential, counts, strict=True)), drawing)
        path = f"images/{patient}/field_{index}.{config.image_format}"
        _write_image(root / path, drawn, quality)
        result.append((path, drawn))
    return result


def _write_image(path: Path, drawn: SyntheticField, quality: int) -> None:
    bgr = cv2.cvtColor(drawn.image, cv2.COLOR_RGB2BGR)
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality] if path.suffix == ".jpg" else []
    _, encoded = cv2.imencode(path.suffix, bgr, flags)
    path.write_bytes(encoded.tobytes())


def _truth_rows(path: str, drawn: SyntheticField) -> list[dict[str, Any]]:
    return [
        {
            "file": path, "type": cell.type.value,
            "x_px": round(cell.x_px, 2), "y_px": round(cell.y_px, 2),
            "left_px": cell.left_px, "top_px": cell.top_px,
            "width_px": cell.width_px, "height_px": cell.height_px,
            "area_px": cell.area_px, "at_border": int(cell.at_border),
        }
        for cell in drawn.cells
    ]  # fmt: skip


def _write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())
