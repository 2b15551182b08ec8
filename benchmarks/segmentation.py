"""Leukocyte segmentation measured on real images: the whole table, with bootstrap intervals.

Run ``python benchmarks/segmentation.py --data ../shared/data --methods default paper`` for the
Markdown table of docs/segmentation.md. A centre inside the box of an unmatched leukocyte is a hit,
any other is false. No scale is given: each image is judged by
its own red cells, and again with those of all images of its set, as ``millie detect`` does for the
images of one command.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from millie.config import SegmentationConfig
from millie.segmentation import central_region, sample_statistics, segment
from millie.types import Detection, PixelSize

Pixels = NDArray[np.uint8]
METHODS = ("paper", "released-code", "default")
SIGNED = {
    "Blast, no lineage spec", "Promyelocyte", "Myelocyte", "Metamyelocyte", "Band neutrophils",
    "Segmented neutrophils", "Eosinophils", "Basophil", "Lymphocyte", "Lymphocyte, variant",
    "Monocyte", "Promonocyte", "Plasma cells", "Erythroblast",
}  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """One image of a set and its truth."""

    name: str
    image: Pixels
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    truth: Pixels | None = None
    kind: str = ""


def read(path: Path) -> Pixels | None:
    try:
        with Image.open(path) as file:
            return np.asarray(file.convert("RGB"))
    except OSError:
        return None


def bccd(root: Path) -> Iterator[Sample]:
    for path in sorted((root / "bccd" / "JPEGImages").glob("*.jpg")):
        image = read(path)
        xml = root / "bccd" / "Annotations" / f"{path.stem}.xml"
        boxes = []
        for item in ElementTree.parse(xml).getroot().iter("object"):  # noqa: S314  our own files
            if item.findtext("name") == "WBC":
                corners = [float(item.findtext(f"bndbox/{k}") or 0) for k in CORNERS]
                boxes.append((corners[0], corners[1], corners[2], corners[3]))
        if image is not None:
            yield Sample(path.name, image, tuple(boxes))


CORNERS = ("xmin", "ymin", "xmax", "ymax")


def all_idb1(root: Path) -> Iterator[Sample]:
    """Boxes are 12 um around each blast's centroid; the other leukocytes are not annotated."""
    for path in sorted((root / "all_idb1" / "im").glob("*.jpg")):
        image = read(path)
        if image is None:
            continue
        text = (root / "all_idb1" / "xyc" / f"{path.stem}.xyc").read_text()
        points = [tuple(map(float, line.split()[:2])) for line in text.splitlines() if line.strip()]
        half = 6 / (0.088 if image.shape[1] > 2000 else 0.11)
        boxes = tuple((x - half, y - half, x + half, y + half) for x, y in points)
        yield Sample(path.name, image, boxes, kind=path.stem[-1])


def apl_aml(root: Path) -> Iterator[Sample]:
    for path in sorted((root / "apl_aml" / "All").rglob("*.jpg")):
        kind = path.parent.name
        if kind in SIGNED | {"Smudge cells", "Giant thrombocyte"}:
            image = read(path)
            if image is not None:
                yield Sample(path.name, image, kind=kind)


def crops(name: str, pattern: str) -> Callable[[Path], Iterator[Sample]]:
    def samples(root: Path) -> Iterator[Sample]:
        for path in sorted((root / name).glob(pattern)):
            image = read(path)
            if image is not None:
                yield Sample(path.name, image, kind=path.parent.name)

    return samples


def wbc_masks(root: Path) -> Iterator[Sample]:
    for path in sorted((root / "wbc_masks" / "Dataset 1").glob("*.bmp")):
        image, truth = read(path), read(path.with_suffix(".png"))
        if image is not None and truth is not None:
            yield Sample(path.name, image, truth=truth[:, :, 0])


SETS: dict[str, Callable[[Path], Iterator[Sample]]] = {
    "bccd": bccd,
    "all_idb1": all_idb1,
    "apl_aml": apl_aml,
    "wbc_masks": wbc_masks,
    "pbc_cells": crops("pbc_cells", "[!p]*/*.jpg"),
    "platelet": crops("pbc_cells", "platelet/*.jpg"),
    "bone_marrow_cells": crops("bone_marrow_cells", "*/*.jpg"),
}


def match(detection: Detection, boxes: tuple[tuple[float, float, float, float], ...]) -> NDArray:
    """(hits, false, missed) of one image."""
    free = list(boxes)
    false = 0
    for region in detection.regions:
        x, y = region.cell.x_px, region.cell.y_px
        inside = [b for b in free if b[0] <= x <= b[2] and b[1] <= y <= b[3]]
        if inside:
            free.remove(
                min(inside, key=lambda b: (b[0] + b[2] - 2 * x) ** 2 + (b[1] + b[3] - 2 * y) ** 2)
            )
        else:
            false += 1
    return np.array([len(boxes) - len(free), false, len(free)], dtype=float)


def exactly_one(detection: Detection, shape: tuple[int, ...]) -> float:
    """1 if one cell, and only one, has its centre in the middle third of the crop."""
    height, width = shape[:2]
    near = [
        r for r in detection.regions
        if abs(r.cell.x_px - width / 2) < width / 6 and abs(r.cell.y_px - height / 2) < height / 6
    ]  # fmt: skip
    return float(len(near) == 1)


def dice(detection: Detection, truth: Pixels, level: int) -> float:
    """Dice overlap of the central cell's nucleus (level 200) or whole cell (60) with the truth."""
    region = central_region(detection, truth.shape)
    real = truth > level
    if region is None:
        return 0.0
    ours = np.zeros(truth.shape, bool)
    cell = region.cell
    mask = region.nucleus_mask if level > 100 else region.cell_mask
    ours[
        cell.top_px : cell.top_px + cell.height_px, cell.left_px : cell.left_px + cell.width_px
    ] = mask
    return float(2 * (ours & real).sum() / max(ours.sum() + real.sum(), 1))


def squeezed(image: Pixels) -> Pixels:
    return np.asarray(cv2.resize(image, (416, 416), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def recoloured(gains: tuple[float, float, float]) -> Callable[[Pixels], Pixels]:
    return lambda image: np.clip(image * np.array(gains), 0, 255).astype(np.uint8)


def restained(strength: float) -> Callable[[Pixels], Pixels]:
    """Optical density against the brightest percentile times a factor."""

    def change(image: Pixels) -> Pixels:
        white = np.percentile(image, 97, axis=(0, 1))
        return np.clip(white * ((image + 1.0) / (white + 1)) ** strength, 0, 255).astype(np.uint8)

    return change


def jpeg(quality: int) -> Callable[[Pixels], Pixels]:
    def change(image: Pixels) -> Pixels:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return change


def scaled(factor: float) -> Callable[[Pixels], Pixels]:
    def change(image: Pixels) -> Pixels:
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        return np.asarray(
            cv2.resize(image, None, fx=factor, fy=factor, interpolation=how), np.uint8
        )

    return change


CHANGES: dict[str, Callable[[Pixels], Pixels]] = {
    "as it is": lambda image: image,
    "416 x 416 px": squeezed,
    "blue light": recoloured((0.8, 0.9, 1.1)),
    "yellow light": recoloured((1.1, 1.05, 0.75)),
    "exposure x 0.7": recoloured((0.7, 0.7, 0.7)),
    "exposure x 1.2": recoloured((1.2, 1.2, 1.2)),
    "stain x 0.6": restained(0.6),
    "stain x 1.6": restained(1.6),
    "JPEG quality 20": jpeg(20),
    "scale x 0.75": scaled(0.75),
    "scale x 1.25": scaled(1.25),
    "scale x 0.4": scaled(0.4),
}


def interval(values: NDArray, statistic: Callable[[NDArray], float]) -> str:
    """Value and 95 % interval by bootstrap over images, seeded."""
    rng = np.random.default_rng(0)
    draws = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(500)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{statistic(values):.3f} ({low:.3f} - {high:.3f})"


def f1(counts: NDArray) -> float:
    hits, false, missed = counts.sum(axis=0)
    return float(2 * hits / max(2 * hits + false + missed, 1))


def recall(counts: NDArray) -> float:
    hits, _, missed = counts.sum(axis=0)
    return float(hits / max(hits + missed, 1))


def half(items: list[Sample], part: str) -> list[Sample]:
    """All images of a set, or those at even places (constants were chosen on them) or odd ones."""
    return items[{"all": 0, "even": 0, "odd": 1}[part] :: 1 if part == "all" else 2]


def thinned(items: list[Sample], limit: int) -> list[Sample]:
    step = max(1, len(items) // limit) if limit else 1
    return items[::step]


def rows_of_fields(
    method: str,
    samples: list[Sample],
    change: Callable[[Pixels], Pixels],
    *,
    together: bool = False,
) -> NDArray:
    """(hits, false, missed) of each field, alone or with the scale that all show together."""
    config = SegmentationConfig(method=method)
    images = [np.ascontiguousarray(change(s.image)) for s in samples]
    statistics = sample_statistics([(i, None) for i in images[:24]], config) if together else None
    rows = []
    for sample, image in zip(samples, images, strict=True):
        fx, fy = image.shape[1] / sample.image.shape[1], image.shape[0] / sample.image.shape[0]
        boxes = tuple((a * fx, b * fy, c * fx, d * fy) for a, b, c, d in sample.boxes)
        rows.append(match(segment(image, None, config, statistics), boxes))
    return np.array(rows)


def rows_of_crops(method: str, samples: list[Sample], *, together: bool) -> dict[str, NDArray]:
    """Crops judged alone, or with the scale that all of them show together."""
    config = SegmentationConfig(method=method)
    statistics = (
        sample_statistics([(s.image, None) for s in samples[:40]], config) if together else None
    )
    one, nucleus, cell, kinds = [], [], [], []
    for sample in samples:
        detection = segment(sample.image, None, config, statistics)
        one.append(exactly_one(detection, sample.image.shape))
        kinds.append(sample.kind)
        if sample.truth is not None:
            nucleus.append(dice(detection, sample.truth, 200))
            cell.append(dice(detection, sample.truth, 60))
    found = {"one": np.array(one), "nucleus": np.array(nucleus), "cell": np.array(cell)}
    for kind in sorted(set(kinds) - {""}):
        found[f"one: {kind}"] = np.array([v for v, k in zip(one, kinds, strict=True) if k == kind])
    return found


def speed(method: str, samples: list[Sample], pixel_size: PixelSize | None) -> str:
    """Median and range over fields, in processor time: others on the machine count less."""
    config = SegmentationConfig(method=method)
    rates = []
    for sample in samples:
        seconds = []
        for _ in range(3):
            started = time.process_time()
            segment(sample.image, pixel_size, config)
            seconds.append(time.process_time() - started)
        rates.append(sample.image.size / 3e6 / min(seconds))
    return f"{np.median(rates):.1f} ({min(rates):.1f} - {max(rates):.1f})"


def mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def table(method: str, root: Path, limit: int, part: str) -> Iterator[tuple[str, str]]:
    """(measure, value) for one method."""
    for name in ("bccd",):
        samples = thinned(half(list(SETS[name](root)), part), limit)
        for label, change in CHANGES.items():
            for together in (False, True):
                how = "as one sample" if together else "each alone"
                rows = rows_of_fields(method, samples, change, together=together)
                yield f"{name} F1, {label}, {how}", interval(rows, f1)
    samples = half(list(all_idb1(root)), part)
    counts = rows_of_fields(method, samples, CHANGES["as it is"])
    ill = np.array([s.kind == "1" for s in samples])
    yield "all_idb1 blast recall", interval(counts[ill], recall)
    yield "all_idb1 cells a healthy field", f"{counts[~ill, 1].mean():.2f}"
    for name in ("apl_aml", "wbc_masks", "pbc_cells", "platelet", "bone_marrow_cells"):
        samples = thinned(half(list(SETS[name](root)), part), limit)
        for together in (False, True):
            how = "as one sample" if together else "each alone"
            for what, values in rows_of_crops(method, samples, together=together).items():
                if len(values):
                    yield f"{name} {what}, {how} (n = {len(values)})", interval(values, mean)
    big = [s for s in all_idb1(root) if s.image.shape[1] > 2000]
    yield "speed, fields of 5 MP, scale to be found, MP/s", speed(method, big, None)
    yield "speed, fields of 5 MP, scale known, MP/s", speed(method, big, PixelSize(0.088))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MILLIE_DATA", "../shared/data"))
    )
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--limit", type=int, default=0, help="about so many images a set; 0: all")
    parser.add_argument("--part", choices=("all", "even", "odd"), default="all")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    columns = {
        m: dict(table(m, arguments.data, arguments.limit, arguments.part))
        for m in arguments.methods
    }
    print(
        f"{platform.machine()}, Python {platform.python_version()}, "
        f"OpenCV {cv2.__version__}, one thread\n"
    )
    print("| measure | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for measure in next(iter(columns.values())):
        print(f"| {measure} | " + " | ".join(c.get(measure, "") for c in columns.values()) + " |")


if __name__ == "__main__":
    main()
