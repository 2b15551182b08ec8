"""The cohort of the bundle `acute-leukaemia`: patients, and pseudo-patients where sets name none.

`python benchmarks/training/cohort.py DATA WORK` copies images to WORK/images and writes
WORK/cohort.csv for `millie segment`. A pseudo-patient of single cells is a random mixture of types
and a random number of cells, each cell in one of them only, so that neither tells the class; one of
fields is a run of consecutive frames. Types decide about mixtures alone, and no label of a cell of
`apl_aml` is read.

normal: `pbc_cells`, `bcisc`, `bccd`, `fields_other`, `wbc_masks`, healthy fields of `all_idb1`,
benign films of `aria_all`, neutrophils of `lmu_cells`; ALL: `all_idb1`, `aria_all`; AML: `apl_aml`,
myeloblasts of `lmu_cells` among some of its neutrophils; APL: `apl_aml`.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from cell_sources import UM_PX, aria, bcisc, lmu
from numpy.typing import NDArray

from millie.readers.all_idb import prepare_fields as prepare_all_idb1
from millie.readers.apl_aml import prepare as prepare_apl_aml
from millie.readers.images import find_images
from millie.types import Patient

CELLS = (30, 250)
"""Least and most cells of a pseudo-patient of single cells, log-uniform."""
FEW_TYPES = 0.5
"""Dirichlet parameter of the mixture of types: most bags are of two or three types."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One image of a (pseudo-)patient."""

    patient: str
    label: str
    path: Path
    kind: str
    um_px: float
    site: str


def mixtures(
    files: dict[str, list[Path]], rng: np.random.Generator, least: int = CELLS[0]
) -> Iterator[list[Path]]:
    """Bags of random size and mixture, each file in one of them, until few are left."""
    left = {kind: list(rng.permutation(np.array(own))) for kind, own in files.items()}
    while sum(map(len, left.values())) >= 2 * least:
        size = round(np.exp(rng.uniform(*np.log(CELLS))))
        shares = rng.dirichlet(np.full(len(left), FEW_TYPES))
        bag: list[Path] = []
        for kind, count in zip(left, rng.multinomial(size, shares), strict=True):
            bag += left[kind][:count]
            left[kind] = left[kind][count:]
        if len(bag) >= least:
            yield bag


def runs(files: Sequence[Path], number: int) -> list[NDArray[np.object_]]:
    """Consecutive files in so many runs."""
    return np.array_split(np.array(files, object), number)


def of(name: str, label: str, bags: Iterable[Iterable[Path]], kind: str, um_px: float,
       site: str) -> Iterator[Shown]:  # fmt: skip
    """Pseudo-patients of one source and class."""
    for number, bag in enumerate(bags):
        for path in bag:
            yield Shown(f"{name}-{number:02d}", label, Path(path), kind, um_px, site)


def as_published(patients: Iterable[Patient], site: str) -> Iterator[Shown]:
    """Patients of a set as its adapter reads them."""
    for patient in patients:
        for image in patient.images:
            um_px = image.pixel_size.um_px if image.pixel_size else 0.0
            kind = image.kind.value if image.kind else ""
            yield Shown(patient.id, patient.label or "", image.path, kind, um_px, site)


def normal_films(data: Path, work: Path, rng: np.random.Generator) -> Iterator[Shown]:
    """Sources of healthy blood."""
    folders = sorted(p for p in (data / "pbc_cells").iterdir() if p.is_dir())
    typed = {p.name: find_images(p) for p in folders if p.name != "platelet"}
    yield from of("pbc", "normal", mixtures(typed, rng), "cell", 0.1, "Barcelona")
    fields = {
        "bccd": ("bccd/JPEGImages", 6, "BCCD"),
        "raabin_575": ("fields_other/raabin_575/images", 3, "Raabin"),
        "bccd_like_416": ("fields_other/bccd_like_416/images", 2, "TXL-PBC"),
        "draaslan_256": ("fields_other/draaslan_256/images", 1, "draaslan"),
    }
    for name, (folder, number, site) in fields.items():
        bags = runs(find_images(data / folder), number)
        yield from of(name, "normal", bags, "field", UM_PX[name], site)
    masks = sorted((data / "wbc_masks" / "Dataset 1").glob("*.bmp"))
    yield from of("wbc_masks", "normal", runs(masks, 6), "cell", UM_PX["wbc_masks"], "Jiangxi")
    shown = [path for _, path, _ in bcisc(data, work / "spotless")]
    bags = runs(list(rng.permutation(np.array(shown))), 2)
    yield from of("bcisc", "normal", bags, "field", UM_PX["bcisc"], "BCISC")


def lymphoid(data: Path, work: Path) -> Iterator[Shown]:
    """ALL of two sources with the normal and benign films of the same."""
    fields = prepare_all_idb1(data / "all_idb1").patients
    yield from as_published((f for f in fields if f.label == "ALL"), "Milan")
    healthy = [f for f in fields if f.label != "ALL"]  # about two cells each
    pooled = (replace(f, id=f"idb1-healthy-{i % 2}") for i, f in enumerate(healthy))
    yield from as_published(pooled, "Milan")
    frames: dict[str, list[Path]] = {}
    for pool, path, _ in aria(data, work / "stretched"):
        frames.setdefault(pool, []).append(path)
    for pool, own in frames.items():
        label = "normal" if "Benign" in pool else "ALL"
        yield from of(pool, label, runs(own, 2), "field", UM_PX["aria_all"], "Tehran")


def myeloid(data: Path, rng: np.random.Generator) -> Iterator[Shown]:
    """AML and APL patients, and pseudo-patients of another laboratory's blasts."""
    yield from as_published(prepare_apl_aml(data / "apl_aml").patients, "Johns Hopkins")
    cells: dict[str, list[Path]] = {}
    for _, path, kind in lmu(data):
        cells.setdefault(kind, []).append(path)
    blasts, others = (list(rng.permutation(np.array(own))) for own in cells.values())
    bags = []
    for run in runs(blasts, 5):
        count = int(rng.integers(0, 9))
        bags.append([*run, *others[:count]])
        others = others[count:]
    yield from of("lmu-aml", "AML", bags, "cell", UM_PX["lmu_cells"], "Munich")
    yield from of("lmu-normal", "normal", runs(others, 2), "cell", UM_PX["lmu_cells"], "Munich")


def main() -> None:
    data, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    rng = np.random.default_rng(0)
    work.mkdir(parents=True, exist_ok=True)
    with (work / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("patient", "label", "path", "kind", "um_px", "site"))
        shown = (*normal_films(data, work, rng), *lymphoid(data, work), *myeloid(data, rng))
        for number, one in enumerate(shown):
            copy = work / "images" / one.patient / f"{number:05d}{one.path.suffix}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(one.path, copy)
            um_px = one.um_px or ""
            place = copy.relative_to(work)
            table.writerow((one.patient, one.label, place, one.kind, um_px, one.site))


if __name__ == "__main__":
    main()
