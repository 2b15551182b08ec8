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
import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from millie.errors import ConfigError
from millie.synthetic.film import FilmConfig, draw_field
from millie.synthetic.leukocytes import CellType
from millie.synthetic.stain import draw_style

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from millie.synthetic.film import SyntheticField

MANIFEST_NAME = "manifest.csv"
TRUTH_NAME = "truth.csv"
DESCRIPTION_NAME = "cohort.json"
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
    """What is drawn, and how large.

    Attributes:
        n_per_class: patients of each label, at least 1.
        seed: of everything, at least 0.
        cells_per_patient: leukocytes of each patient, at least; fields are added until it is
            reached.
        cells_per_field: range of the number of leukocytes of a field.
        labels: of :data:`DISEASES`.
        prefix: start of every patient's pseudonym: letters, digits, ``-`` and ``_``.
        film: settings of the fields; its style is replaced by each patient's.
        image_format: of the files; png keeps the pixels that were drawn, artefacts included.

    Raises:
        ConfigError: an unknown label, an empty or descending range, or fewer than one patient.
    """

    n_per_class: int = 7
    seed: int = 0
    cells_per_patient: int = 90
    cells_per_field: tuple[int, int] = (20, 32)
    labels: tuple[str, ...] = tuple(DISEASES)
    prefix: str = "P"
    film: FilmConfig = field(default_factory=FilmConfig)
    image_format: Literal["jpg", "png"] = "jpg"

    def __post_init__(self) -> None:
        for label in self.labels:
            if label not in DISEASES:
                known = ", ".join(DISEASES)
                raise ConfigError(f"unknown diagnosis '{label}'; expected one of: {known}")
        low, high = self.cells_per_field
        if not 1 <= low <= high:
            raise ConfigError(f"cells_per_field=({low}, {high}): expected 1 <= lowest <= highest")
        if min(self.n_per_class, self.cells_per_patient, len(self.labels)) < 1 or self.seed < 0:
            raise ConfigError(
                f"{self.n_per_class} patients of {len(self.labels)} diagnoses with "
                f"{self.cells_per_patient} cells, seed {self.seed}: expected at least one of each "
                "and a seed of at least 0"
            )
        if self.image_format not in {"jpg", "png"}:
            raise ConfigError(f"image format '{self.image_format}': expected jpg or png")
        if not re.fullmatch(r"[A-Za-z0-9_-]*", self.prefix):
            raise ConfigError(f"prefix '{self.prefix}': expected letters, digits, - and _ only")

    def digest(self) -> str:
        """SHA-256 (hex): equal settings, equal digest."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def write_cohort(
    folder: Path,
    n_per_class: int = 7,
    seed: int = 0,
    *,
    cells_per_patient: int = 90,
    prefix: str = "P",
    progress: Callable[[str, int, int], None] | None = None,
) -> Path:
    """Draw a cohort of all diagnoses into a folder; see :func:`write_configured_cohort`."""
    config = CohortConfig(
        n_per_class=n_per_class, seed=seed, cells_per_patient=cells_per_patient, prefix=prefix
    )
    return write_configured_cohort(folder, config, progress)


def write_configured_cohort(
    folder: Path, config: CohortConfig, progress: Callable[[str, int, int], None] | None = None
) -> Path:
    """Draw a cohort into a new folder.

    ``manifest.csv`` (patient, label, path, kind, um_px), ``truth.csv`` (a row a leukocyte),
    ``images/<patient>/field_<n>.<format>`` and ``cohort.json`` (digest of the settings). The
    folder appears only when all is written: a run that is broken off leaves ``.<name>.partial``
    beside it, which the next one replaces. A cohort of the same settings is left as it is.

    Args:
        folder: does not exist yet, or is empty, or holds the cohort of the same settings.
        config: the same, the same files to the byte.
        progress: called with ("drawing", patients done, patients) after each.

    Returns:
        Path of the manifest.

    Raises:
        ConfigError: something else lies in the folder.
    """
    place = folder.resolve()
    if _is_there(place, config):
        return folder / MANIFEST_NAME
    partial = place.parent / f".{place.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    _write_all(partial, config, progress)
    partial.replace(place)
    return folder / MANIFEST_NAME


def _is_there(folder: Path, config: CohortConfig) -> bool:
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    description = folder / DESCRIPTION_NAME
    if not description.is_file():
        raise ConfigError(f"{folder} exists and holds no cohort: name a new or an empty folder")
    if config.digest() not in description.read_text(encoding="utf-8"):
        raise ConfigError(
            f"{folder} holds a cohort drawn with other settings: name a new folder or remove it"
        )
    return True


def _write_all(
    root: Path, config: CohortConfig, progress: Callable[[str, int, int], None] | None
) -> None:
    order, *seeds = np.random.SeedSequence(config.seed).spawn(
        1 + config.n_per_class * len(config.labels)
    )
    labels = np.repeat(config.labels, config.n_per_class)
    np.random.default_rng(order).shuffle(labels)
    manifest: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for number, (label, seed) in enumerate(zip(labels.tolist(), seeds, strict=True), start=1):
        patient = f"{config.prefix}{number:03d}"
        for path, drawn in _write_patient(root, patient, DISEASES[label], config, seed):
            manifest.append({"patient": patient, "label": label, "path": path, "kind": "field",
                             "um_px": drawn.um_px})  # fmt: skip
            truth += _truth_rows(path, drawn)
        if progress is not None:
            progress("drawing", number, len(seeds))
    _write_table(root / TRUTH_NAME, TRUTH_COLUMNS, truth)
    _write_table(root / MANIFEST_NAME, MANIFEST_COLUMNS, manifest)
    description = {"schema": 1, "digest": config.digest(), "seed": config.seed}
    (root / DESCRIPTION_NAME).write_text(json.dumps(description, indent=2), encoding="utf-8")


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
    result: list[tuple[str, SyntheticField]] = []
    missing = config.cells_per_patient
    while missing > 0:
        n = int(amount.integers(config.cells_per_field[0], config.cells_per_field[1] + 1))
        missing -= n
        counts = blood.multinomial(n, list(differential.values())).tolist()
        drawn = draw_field(film, dict(zip(differential, counts, strict=True)), drawing)
        path = f"images/{patient}/field_{len(result) + 1:02d}.{config.image_format}"
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
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        file.flush()
        os.fsync(file.fileno())
