"""What images of another size do to the shipped models, with a false scale stated and with none.

`PYTHONPATH=benchmarks/training:benchmarks python benchmarks/wrong_scale.py DATA WORK` makes the
crops of 24 patients of `apl_aml` smaller and larger and calls them: once with the 0.1 um/px that
held before, which is false now, and once without a scale, so that it is read from the cells. Prints
for each model, scale and size the mean and largest change of a probability, of how many patients
the scale was doubted, and which states came from which, against the crops' own size with the same
scale (not stated, own size: against stated). The models have learnt from these patients.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import millie
from millie.models.bundle_folder import shipped_bundles
from millie.readers.apl_aml import prepare
from millie.synthetic.changes import rescale
from millie.types import ImageKind, Prediction
from safety import Sample, read, written

SIZES = (1.0, 0.8, 1.25, 0.67, 1.5)
PATIENTS, LEAST = 24, 50
"""So many, with at least so many crops each."""
SCALES = {"0.1 um per px stated": ["segmentation.um_px=0.1"], "not stated": []}


def resized(data: Path, factor: float) -> Iterator[Sample]:
    """Crops of patients with at least 50, half with APL; overviews are left out."""
    for label in ("APL", "AML"):
        own = [p for p in prepare(data / "apl_aml").patients if p.label == label]
        crops = {p.id: [i.path for i in p.images if i.kind is ImageKind.CELL] for p in own}
        enough = [patient for patient, paths in crops.items() if len(paths) >= LEAST]
        for patient in enough[: PATIENTS // 2]:
            yield f"{label} {patient}", [rescale(read(path), factor) for path in crops[patient]]


def listed(folders: list[Path]) -> Path:
    """A manifest which says that these are single cells: larger crops pass for fields."""
    path = folders[0].parent.parent / f"{folders[0].parent.name}.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("patient", "label", "path", "kind"))
        for folder in folders:
            table.writerows((folder.name, "", crop, "cell") for crop in sorted(folder.iterdir()))
    return path


def told(name: str, found: dict[str, Prediction], before: dict[str, Prediction]) -> None:
    """Print what a size did to the patients that were called before."""
    both = [(before[p], found[p]) for p in before if p in found]
    moved = [
        max(abs(new.probabilities[k] - old.probabilities[k]) for k in old.probabilities)
        for old, new in both
    ]
    states = Counter(f"{old.state} to {new.state}" for old, new in both if old.state != new.state)
    doubted = sum(
        any(reason.code in ("SCALE_CONTRADICTED", "UNFAMILIAR_MAGNIFICATION")
            for reason in new.reasons)
        for _, new in both
    )  # fmt: skip
    print(
        f"{name} | {len(both)} patients | moved {sum(moved) / len(moved):.3f}, most "
        f"{max(moved):.2f} | scale doubted {doubted} | {dict(states.most_common())}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    before: dict[tuple[str, str], dict[str, Prediction]] = {}
    for size in SIZES:
        manifest = listed(written(resized(arguments.data, size), arguments.work / f"x {size}"))
        for scale, settings in SCALES.items():
            store = arguments.work / f"{scale}, x {size}"
            millie.segment(manifest, store, millie.Config().with_settings(settings))
            for model in shipped_bundles():
                out = arguments.work / "called" / model / store.name
                called = millie.predict(model, store, out, pictures="none").predictions
                found = {one.patient: one for one in called}
                own_size = before.setdefault((model, scale), found)
                reference = before[model, next(iter(SCALES))] if found is own_size else own_size
                told(f"{model} | {scale} | x {size}", found, reference)


if __name__ == "__main__":
    main()
