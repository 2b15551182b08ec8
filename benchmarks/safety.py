"""What the shipped models say of samples that should have no diagnosis, or lose theirs.

`PYTHONPATH=benchmarks/training python benchmarks/safety.py DATA WORK` writes images of
each group to WORK/images (one folder a sample), calls them with `millie predict` under each shipped
model, and prints a line a group: how many samples ended in which state, the share in which a
disease was named with its exact interval, and the codes of the reasons. Groups are healthy donors,
single types of normal cells, other diseases than a model knows, no blood, too few cells, copies,
and patients with AML and APL, at their own size, half and twice of it, without a stated scale. The
models have learnt from these patients, and from other cells of these donors: this shows what they
do, not how well they generalise (docs/results.md).
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from cell_sources import UM_PX, aria, bcisc, lmu
from cohort import mixtures
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_images

import millie
from millie.models.bundle_folder import shipped_bundles
from millie.readers.apl_aml import prepare as prepare_apl_aml
from millie.readers.images import find_images
from millie.statistics.intervals import clopper_pearson
from millie.synthetic.changes import rescale, turn_hue

Pixels = NDArray[np.uint8]
Sample = tuple[str, list[Pixels]]

CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "as they are": lambda image: image,
    "half the size": partial(rescale, factor=0.5),
    "twice the size": partial(rescale, factor=2.0),
}
PATIENTS = 12
SAMPLE = 60
"""Cells of a made sample."""


def read(path: Path) -> Pixels:
    return np.asarray(Image.open(path).convert("RGB"))


def typed(data: Path) -> dict[str, list[Path]]:
    """Cells of healthy donors by type."""
    folders = sorted(p for p in (data / "pbc_cells").iterdir() if p.is_dir())
    return {p.name: find_images(p) for p in folders if p.name != "platelet"}


ADULT = {
    "neutrophil": (2.0, 7.0), "lymphocyte": (1.0, 3.0), "monocyte": (0.2, 1.0),
    "eosinophil": (0.02, 0.5), "basophil": (0.02, 0.1),
}  # fmt: skip
"""Cells of healthy adults, 10^9 per litre (Dacie and Lewis, Practical Haematology, 12th edition,
table 2.1): all that their films show, where mixtures below hold any type in any share."""


def differentials(
    files: dict[str, list[Path]], rng: np.random.Generator, cells: int
) -> Iterator[list[Path]]:
    """Bags of a healthy adult's types of cell, each file in one of them, until one type is out."""
    left = {kind: list(rng.permutation(np.array(files[kind]))) for kind in ADULT}
    while True:
        counts = np.array([rng.uniform(*ADULT[kind]) for kind in ADULT])
        shares = rng.multinomial(cells, counts / counts.sum())
        if any(count > len(left[kind]) for kind, count in zip(left, shares, strict=True)):
            return
        bag: list[Path] = []
        for kind, count in zip(left, shares, strict=True):
            bag += left[kind][:count]
            left[kind] = left[kind][count:]
        yield bag


def healthy(data: Path, work: Path) -> Iterator[tuple[str, Iterator[Sample], float]]:
    """Mixtures of normal cells, one type alone, and fields, with um/px."""
    rng = np.random.default_rng(1)
    for cells in (100, 230):
        adults = enumerate(differentials(typed(data), np.random.default_rng(cells), cells))
        alike = ((f"adult-{cells}-{i}", [*map(read, bag)]) for i, bag in adults)
        yield f"healthy differentials, {cells} cells", alike, 0.1
    bags = [bag for bag in mixtures(typed(data), rng) if len(bag) >= SAMPLE]
    yield "healthy donors, Barcelona", ((f"pbc-{i}", [*map(read, bag)])
                                        for i, bag in enumerate(bags)), 0.1  # fmt: skip
    alone = {kind: list(rng.permutation(np.array(own))[:SAMPLE])
             for kind, own in typed(data).items() if len(own) >= SAMPLE}  # fmt: skip
    yield "one normal type alone", ((kind, [*map(read, own)]) for kind, own in alone.items()), 0.1
    shown = [path for _, path, _ in bcisc(data, work / "spotless")]
    parts = np.array_split(rng.permutation(np.array(shown)), 4)
    yield "healthy donors, BCISC", ((f"bcisc-{i}", [*map(read, part)])
                                    for i, part in enumerate(parts)), UM_PX["bcisc"]  # fmt: skip


def others(data: Path, work: Path) -> Iterator[tuple[str, Iterator[Sample], float]]:
    """Leukaemia of laboratories and kinds that a model may not know."""
    frames: dict[str, list[Path]] = {}
    for pool, path, _ in aria(data, work / "stretched"):
        if "Benign" not in pool:
            frames.setdefault(pool, []).append(path)
    yield "ALL, Tehran", ((pool, [*map(read, own)])
                          for pool, own in frames.items()), UM_PX["aria_all"]  # fmt: skip
    marrow = np.random.default_rng(2).permutation(
        np.array(find_images(data / "bone_marrow_cells"), object)
    )
    parts = np.array_split(marrow, 2)
    yield "bone marrow, pooled", ((f"marrow-{i}", [*map(read, part)])
                                  for i, part in enumerate(parts)), 0.1  # fmt: skip
    blasts = [path for _, path, kind in lmu(data) if kind == "myeloblast"]
    parts = np.array_split(np.array(blasts, object), max(1, len(blasts) // SAMPLE))
    yield "myeloblasts, Munich", ((f"lmu-{i}", [*map(read, part)])
                                  for i, part in enumerate(parts)), UM_PX["lmu_cells"]  # fmt: skip


def not_blood() -> Iterator[Sample]:
    """Photographs, text, noise, stripes, and discs in the colours of a stain."""
    rng = np.random.default_rng(3)
    photographs = load_sample_images().images
    makers: dict[str, Callable[[], Pixels]] = {
        "photograph": lambda: _crop(photographs[int(rng.integers(2))], rng),
        "photograph in purple": lambda: turn_hue(
            turn=rng.random(), image=_crop(photographs[int(rng.integers(2))], rng)
        ),
        "noise": lambda: rng.integers(0, 256, (360, 360, 3)).astype(np.uint8),
        "soft noise": lambda: cv2.resize(
            rng.integers(0, 256, (12, 12, 3)).astype(np.uint8), (360, 360)
        ),
        "text": lambda: _text(rng),
        "stripes": lambda: _stripes(rng),
        "purple discs": lambda: _discs(rng),
        "textured discs": lambda: _textured(photographs[int(rng.integers(2))], rng),
    }
    for name, make in makers.items():
        for number in range(3):
            yield f"{name} {number}", [make() for _ in range(SAMPLE)]


def _crop(image: Pixels, rng: np.random.Generator) -> Pixels:
    y, x = (int(rng.integers(0, n - 160)) for n in image.shape[:2])
    return np.asarray(cv2.resize(image[y : y + 160, x : x + 160], (360, 360)), np.uint8)


def _text(rng: np.random.Generator) -> Pixels:
    image = Image.new("RGB", (360, 360), "white")
    draw = ImageDraw.Draw(image)
    for y in range(10, 350, 16):
        draw.text((8, y), "".join(map(chr, rng.integers(97, 123, 50))), fill="black")
    return np.asarray(image)


def _stripes(rng: np.random.Generator) -> Pixels:
    wave = np.sin(np.linspace(0, rng.uniform(10, 120), 360))[:, None, None]
    return np.clip(wave * rng.uniform(40, 120, 3) + 128, 0, 255).repeat(360, 1).astype(np.uint8)


def _discs(rng: np.random.Generator) -> Pixels:
    image = np.full((360, 360, 3), 235, np.uint8)
    for _ in range(8):
        place = tuple(int(v) for v in rng.integers(0, 360, 2))
        cv2.circle(image, place, int(rng.integers(30, 50)), (225, 170, 180), -1)
    cv2.circle(image, (180, 180), int(rng.integers(60, 110)), (110, 60, 140), -1)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1.5), np.uint8)


def _textured(photograph: Pixels, rng: np.random.Generator) -> Pixels:
    """A disc with the texture of a photograph, in the purple of a nucleus."""
    image, mask = np.full((360, 360, 3), 232, np.uint8), np.zeros((360, 360), np.uint8)
    cv2.circle(mask, (180, 180), int(rng.integers(60, 100)), 1, -1)
    grey = _crop(photograph, rng).mean(axis=2, keepdims=True) / 255
    image[mask > 0] = (np.array([60, 20, 90]) + grey * np.array([130, 110, 110]))[mask > 0]
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 1), np.uint8)


def counted(data: Path) -> Iterator[Sample]:
    """Fewer cells than a call needs, and copies of too few."""
    patient = max(
        (p for p in prepare_apl_aml(data / "apl_aml").patients if p.label == "APL"),
        key=lambda p: len(p.images),
    )
    images = [read(image.path) for image in patient.images]
    for number in (1, 5, 45):
        yield f"{number} cells", images[:number]
    yield "25 cells, each in three formats", images[:25] + [_again(i) for i in images[:25] * 2]
    turns = [np.ascontiguousarray(np.rot90(i, k)) for i in images[:10] for k in range(4)]
    yield "10 cells, each turned and mirrored", turns + [np.fliplr(i) for i in turns]


def _again(image: Pixels) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=95)
    return np.asarray(Image.open(buffer).convert("RGB"))


def changed(data: Path, change: Callable[[Pixels], Pixels]) -> Iterator[Sample]:
    """Half APL, half AML, with at least 50 images each."""
    patients = [p for p in prepare_apl_aml(data / "apl_aml").patients if len(p.images) >= 50]
    for label in ("APL", "AML"):
        for patient in [p for p in patients if p.label == label][: PATIENTS // 2]:
            yield f"{label} {patient.id}", [change(read(i.path)) for i in patient.images]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", default="", help="groups whose names hold this")
    arguments = parser.parse_args()
    data, work = arguments.data, arguments.work
    groups = [*healthy(data, work), *others(data, work)]
    groups += [("no blood", not_blood(), 0.0), ("few cells and copies", counted(data), 0.0)]
    groups += [(f"AML and APL, {name}", changed(data, change), 0.0)
               for name, change in CHANGES.items()]  # fmt: skip
    for name, samples, um_px in groups:
        if arguments.only in name:
            show(name, written(samples, work / "images" / name), um_px, work)


def written(samples: Iterator[Sample], folder: Path) -> list[Path]:
    """Samples as folders of PNG files."""
    shutil.rmtree(folder, ignore_errors=True)
    for sample, images in samples:
        own = folder / sample
        own.mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(own / f"{number:04d}.png", compress_level=1)
    return sorted(folder.iterdir())


def show(name: str, folders: list[Path], um_px: float, work: Path) -> None:
    """Call the samples of a group under each model and print what came out."""
    settings = [f"segmentation.um_px={um_px}"] if um_px else []
    for model in shipped_bundles():
        out = work / "called" / model / name
        found = millie.predict(model, folders, out, settings=settings).predictions
        states = Counter(one.state for one in found)
        codes = Counter(reason.code for one in found for reason in one.reasons)
        quiet = sum(n for s, n in states.items() if s == "NO_SIGNAL" or "INDETERMINATE" in s)
        named = clopper_pearson(len(found) - quiet, len(found)) if found else None
        share = f"{named.value:.2f} ({named.low:.2f} to {named.high:.2f})" if named else "-"
        uncalled = len(folders) - len(found)
        print(
            f"{name} | {model} | {len(folders)} | {dict(sorted(states.items()))} | no cells "
            f"{uncalled} | disease named {share} | {dict(codes.most_common(5))}",
            flush=True,
        )


if __name__ == "__main__":
    main()
