"""Manifests of all sources of cells: input of the encoder and of the bundle `acute-leukaemia`.

Writes WORK/<source>.csv for sets that come without patients; `millie prepare` writes the others.
Images are dealt into pools that stand in place of patients. What a file's folder says of the type
of a normal cell becomes ``cell_label``. Two sets need more than a list, and copies of them lie in
WORK/<source>: the fields of `aria_all` are stretched back to 4 : 3 and lose the corner with the
scale bar, those of `bcisc` lose the bright spot that the camera put beside every leukocyte.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from leukocyte_sources import without_spot
from numpy.typing import NDArray

from segmentation import UM_PX as OTHERS_UM_PX

UM_PX = OTHERS_UM_PX | {"bcisc": 0.064, "aria_all": 0.32, "wbc_masks": 0.17}
"""By the red cells of each set; `wbc_masks` by its nuclei, a median of 8 um."""

ARIA_SIZE_PX = (299, 224)
ARIA_CORNER_PX = (130, 30)
"""Width and height of the lower right corner in which the scale bar stands, after stretching."""

LMU = {"myeloblast": "myeloblast", "seg_neutrophil": "segmented neutrophil"}

CROPS = ("lmu_cells", "wbc_masks")

Row = tuple[str, Path, str]
"""Pool, file, type of the cell."""


def of_fields(root: Path, pattern: str, pool: str) -> Iterator[Row]:
    """All images of a set as one pool."""
    for path in sorted(root.glob(pattern)):
        yield pool, path, ""


def lmu(root: Path) -> Iterator[Row]:
    """Cells by type, one pool each: blasts and neutrophils are mixed later."""
    for folder in sorted(p for p in (root / "lmu_cells").iterdir() if p.is_dir()):
        for path in sorted(folder.glob("*.jpg")):
            yield f"lmu-{folder.name}", path, LMU[folder.name]


def aria(root: Path, work: Path) -> Iterator[Row]:
    """Stretched back and without the corner; consecutive frames stay together, 20 a pool."""
    for folder in sorted(p for p in (root / "aria_all").iterdir() if p.is_dir()):
        for i, path in enumerate(sorted(folder.glob("*.jpg"))):
            image = cv2.resize(cv2.imread(str(path)), ARIA_SIZE_PX, interpolation=cv2.INTER_CUBIC)
            wide, high = ARIA_CORNER_PX
            image[-high:, -wide:] = np.median(image.reshape(-1, 3), axis=0)
            yield f"aria-{folder.name}-{i // 20}", _saved(image, work / folder.name / path.name), ""


def bcisc(root: Path, work: Path) -> Iterator[Row]:
    """Fields of about one leukocyte, without the camera's spot."""
    for path in sorted((root / "bcisc" / "fields").glob("*/*.jpg")):
        image = without_spot(cv2.imread(str(path)))
        yield f"bcisc-{path.parent.name}", _saved(image, work / path.parent.name / path.name), ""


def _saved(image: NDArray[np.uint8], path: Path) -> Path:
    path = path.with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)
    return path


def main() -> None:
    root, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    work.mkdir(parents=True, exist_ok=True)
    sources = {
        "bccd": (root, of_fields(root, "bccd/JPEGImages/*.jpg", "bccd")),
        "raabin_575": (root, of_fields(root, "fields_other/raabin_575/images/*", "raabin")),
        "bccd_like_416": (root, of_fields(root, "fields_other/bccd_like_416/images/*", "416")),
        "draaslan_256": (root, of_fields(root, "fields_other/draaslan_256/images/*", "draaslan")),
        "wbc_masks": (root, of_fields(root, "wbc_masks/Dataset 1/*.bmp", "wbc_masks")),
        "lmu_cells": (root, lmu(root)),
        "aria_all": (work, aria(root, work / "aria_all")),
        "bcisc": (work, bcisc(root, work / "bcisc")),
    }
    for name, (base, rows) in sources.items():
        with (work / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(("patient", "label", "path", "kind", "um_px", "cell_label", "root"))
            shown = "cell" if name in CROPS else "field"
            for pool, path, kind in rows:
                table.writerow((pool, "", path, shown, UM_PX[name], kind, base))


if __name__ == "__main__":
    main()
