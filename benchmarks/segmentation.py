"""Leukocyte segmentation measured on real images: the whole table, with bootstrap intervals.

Run ``python benchmarks/segmentation.py --data ../shared/data --methods default`` for the Markdown
table of docs/segmentation.md. A centre inside the box of an unmatched leukocyte is a hit, any other
is false. Each image is judged by its own cells, again with those of all images of its set, as
``millie detect`` does for the images of one command, and again with its scale given, which tells
errors of the scale from errors of the segmentation. The shipped network was trained on these sets:
``--left-out FOLDER`` adds the columns that decide, each set judged by a network that never saw it
(``A.safetensors`` and so on, written by ``training/leave_out.py``).
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from changes import CHANGES, Pixels
from millie.config import SegmentationConfig
from millie.segmentation import central_region, sample_statistics, segment
from millie.segmentation.film import film_of
from millie.segmentation.instances import cells_of
from millie.segmentation.leukocytes import _resized, _scale, segment_with
from millie.segmentation.network import WORK_UM_PX, Network, shipped
from millie.types import Detection, PixelSize

METHODS = ("paper", "released-code", "default")
HOW = ("each alone", "as one sample", "scale given")
UM_PX = {
    "pbc_cells": 0.105, "platelet": 0.105, "bone_marrow_cells": 0.105, "apl_aml": 0.10,
    "bccd": 0.075, "all_idb1": 0.088, "raabin_575": 0.0575, "bccd_like_416": 0.096,
    "draaslan_256": 0.147, "lmu_cells": 0.07,
}  # fmt: skip
"""By the red cells of each set; fields of ALL-IDB1 under 2,000 px wide: 0.110."""
RED_CELL_UM = 7.2
OF_ITS_BOX = 0.92  # the diameter of a red cell in the box drawn around it, by eye in all four sets
LEAST_RED_CELLS = 5  # whole ones, by which an image's scale is known
FOLDS = {
    "A": ("raabin_575", "all_idb1", "all_idb2", "pbc_cells"),
    "B": ("draaslan_256", "wbc_masks", "apl_aml"),
    "C": ("bccd", "bccd_like_416", "bone_marrow_cells"),
}
"""Sources left out together; ``all_idb2`` was cut out of ``all_idb1``."""
OTHER_FIELDS = ("raabin_575", "bccd_like_416", "draaslan_256")
SIGNED = {
    "Blast, no lineage spec", "Promyelocyte", "Myelocyte", "Metamyelocyte", "Band neutrophils",
    "Segmented neutrophils", "Eosinophils", "Basophil", "Lymphocyte", "Lymphocyte, variant",
    "Monocyte", "Promonocyte", "Plasma cells", "Erythroblast",
}  # fmt: skip


Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Sample:
    """One image of a set and its truth: boxes of leukocytes and of red cells, or drawn masks."""

    name: str
    image: Pixels
    boxes: tuple[Box, ...] = ()
    truth: Pixels | None = None
    kind: str = ""
    red_cells: tuple[Box, ...] = ()
    platelets: tuple[Box, ...] = ()
    place: int | None = None
    """Its place in the list whose even places teach, if that is another list than the set's."""

    def own_um_px(self) -> float | None:
        """Its scale by its own red cells, None if fewer than five are whole."""
        height, width = self.image.shape[:2]
        edge = 0.01 * width
        sizes = [
            np.sqrt((right - left) * (bottom - top))
            for left, top, right, bottom in self.red_cells
            if min(left, top, width - right, height - bottom) > edge
        ]
        if len(sizes) < LEAST_RED_CELLS:
            return None
        return RED_CELL_UM / (OF_ITS_BOX * float(np.median(sizes)))


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
        boxes: dict[str, list[Box]] = {"WBC": [], "RBC": [], "Platelets": []}
        for item in ElementTree.parse(xml).getroot().iter("object"):  # noqa: S314  our own files
            corners = [float(item.findtext(f"bndbox/{k}") or 0) for k in CORNERS]
            boxes[item.findtext("name") or ""].append(
                (corners[0], corners[1], corners[2], corners[3])
            )
        if image is not None:
            cells, red, platelets = (tuple(boxes[name]) for name in ("WBC", "RBC", "Platelets"))
            yield Sample(path.name, image, cells, red_cells=red, platelets=platelets)


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
    teaching = sorted(root.glob("apl_aml/All/**/Signed slides/*/*.jpg"))
    places = {path: place for place, path in enumerate(teaching)}
    for path in sorted((root / "apl_aml" / "All").rglob("*.jpg")):
        kind = path.parent.name
        if kind in SIGNED | {"Smudge cells", "Giant thrombocyte"}:
            image = read(path)
            if image is not None:
                yield Sample(path.name, image, kind=kind, place=places.get(path, 1))


def crops(name: str, pattern: str) -> Callable[[Path], Iterator[Sample]]:
    def samples(root: Path) -> Iterator[Sample]:
        for path in sorted((root / name).glob(pattern)):
            image = read(path)
            if image is not None:
                yield Sample(path.name, image, kind=path.parent.name)

    return samples


def fields_other(name: str) -> Callable[[Path], Iterator[Sample]]:
    """Fields with YOLO labels (0 leukocyte, 1 red cell, 2 platelet) or KITTI ones."""

    def samples(root: Path) -> Iterator[Sample]:
        folder = root / "fields_other" / name
        for path in sorted((folder / "images").iterdir()):
            image = read(path)
            if image is None:
                continue
            boxes: dict[str, list[Box]] = {"leukocyte": [], "red cell": [], "platelet": []}
            for line in (folder / "labels" / f"{path.stem}.txt").read_text().splitlines():
                kind, *rest = line.split()
                boxes[KINDS[kind]].append(box_of(rest, image.shape))
            cells, red, platelets = (tuple(found) for found in boxes.values())
            yield Sample(path.name, image, cells, red_cells=red, platelets=platelets)

    return samples


KINDS = {
    "0": "leukocyte", "1": "red cell", "2": "platelet", "wbc": "leukocyte", "rbc": "red cell"
}  # fmt: skip


def box_of(row: list[str], shape: tuple[int, ...]) -> Box:
    """The box of a label without its kind: centre and size as shares, or corners in pixels."""
    if len(row) > len(CORNERS):
        left, top, right, bottom = map(float, row[3:7])
        return left, top, right, bottom
    height, width = shape[:2]
    x, y, w, h = map(float, row)
    return (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height


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
    "lmu_cells": crops("lmu_cells", "*/*.jpg"),
    **{name: fields_other(name) for name in OTHER_FIELDS},
}


def match(detection: Detection, boxes: tuple[Box, ...]) -> NDArray:
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


def overlaps(detection: Detection, sample: Sample) -> list[float]:
    """Of each drawn box: intersection over union with the box of the cell that fits it best."""
    found = np.array(
        [
            (c.left_px, c.top_px, c.left_px + c.width_px, c.top_px + c.height_px)
            for c in (region.cell for region in detection.regions)
        ]
    ).reshape(-1, 4)
    best = []
    for drawn in np.array(sample.boxes).reshape(-1, 4):
        sides = np.minimum(found[:, 2:], drawn[2:]) - np.maximum(found[:, :2], drawn[:2])
        both = sides.clip(min=0).prod(axis=1)
        union = (found[:, 2:] - found[:, :2]).prod(axis=1) + (drawn[2:] - drawn[:2]).prod() - both
        best.append(float((both / union).max(initial=0.0)))
    return best


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
    """All images of a set, or those at even places (they teach the network) or odd ones."""
    if part == "all":
        return items
    return [
        item
        for k, item in enumerate(items)
        if (k if item.place is None else item.place) % 2 == (part == "odd")
    ]


def thinned(items: list[Sample], limit: int) -> list[Sample]:
    step = max(1, len(items) // limit) if limit else 1
    return items[::step]


def given(name: str, sample: Sample) -> PixelSize:
    """The scale of an image; of ``wbc_masks``, where none is known, the drawn nucleus is 8 um."""
    if sample.truth is not None:
        return PixelSize(8 / (2 * np.sqrt((sample.truth > 200).sum() / np.pi)))
    if name == "all_idb1" and sample.image.shape[1] < 2000:
        return PixelSize(0.110)
    return PixelSize(UM_PX[name])


@dataclass(frozen=True)
class Method:
    """A named method, or the default one with networks that never saw the set they judge."""

    name: str
    left_out: dict[str, Network] | None = None

    def network(self, name: str) -> Network | None:
        """That for a set; None: the shipped one."""
        if self.left_out is None:
            return None
        return next(self.left_out[fold] for fold, sets in FOLDS.items() if source(name) in sets)

    def knows(self, name: str) -> bool:
        """Whether the set can be judged."""
        return self.left_out is None or any(source(name) in sets for sets in FOLDS.values())


def source(name: str) -> str:
    """What a set was taken from: platelets are of ``pbc_cells``."""
    return {"platelet": "pbc_cells"}.get(name, name)


def detections(method: Method, name: str, samples: list[Sample], how: str) -> Iterator[Detection]:
    """What is found in each image, with the scale from where ``how`` says."""
    network = method.network(name)
    config = SegmentationConfig(method="default" if network else method.name)
    together = how == "as one sample" and network is None
    seen = [(s.image, None) for s in samples[:40]]
    statistics = sample_statistics(seen, config) if together else None
    for sample in samples:
        known = given(name, sample) if how == "scale given" else None
        if network:
            yield segment_with(network, sample.image, known, config)
        else:
            yield segment(sample.image, known, config, statistics)


def rows_of_fields(method: Method, name: str, samples: list[Sample], how: str) -> NDArray:
    """(hits, false, missed) of each field."""
    found = detections(method, name, samples, how)
    return np.array([match(d, s.boxes) for d, s in zip(found, samples, strict=True)])


def changed(samples: list[Sample], change: Callable[[Pixels], Pixels]) -> list[Sample]:
    """The same fields after a change of their pixels, boxes moved with them."""
    fields = []
    for sample in samples:
        image = np.ascontiguousarray(change(sample.image))
        fx, fy = image.shape[1] / sample.image.shape[1], image.shape[0] / sample.image.shape[0]
        boxes = tuple((a * fx, b * fy, c * fx, d * fy) for a, b, c, d in sample.boxes)
        fields.append(replace(sample, image=image, boxes=boxes))
    return fields


def rows_of_crops(method: Method, name: str, samples: list[Sample], how: str) -> dict[str, NDArray]:
    """Shares with one cell, by cell type too, and of smudge flags; overlaps with outlines."""
    one, nucleus, cell, flagged = [], [], [], []
    for sample, found in zip(samples, detections(method, name, samples, how), strict=True):
        one.append(exactly_one(found, sample.image.shape))
        middle = central_region(found, sample.image.shape)
        flagged.append(float(middle is not None and middle.cell.smudge))
        if sample.truth is not None:
            nucleus.append(dice(found, sample.truth, 200))
            cell.append(dice(found, sample.truth, 60))
    rows = {"one": np.array(one), "nucleus": np.array(nucleus), "cell": np.array(cell)}
    if name in ("apl_aml", "pbc_cells"):
        real = np.array([s.kind == "Smudge cells" for s in samples])
        rows["flagged, smudges"] = np.array(flagged)[real]
        rows["flagged, intact cells"] = np.array(flagged)[~real]
    for kind in sorted({s.kind for s in samples} - {""}):
        rows[f"one: {kind}"] = rows["one"][[s.kind == kind for s in samples]]
    return rows


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


def step_times(image: Pixels, um_px: float) -> dict[str, float]:
    """Processor milliseconds of each step of the default method, the least of seven runs."""
    config, clock = SegmentationConfig(), time.process_time
    network = shipped()
    least: dict[str, float] = {}
    for _ in range(7):
        marks = [("", clock())]
        work = _resized(image, um_px / WORK_UM_PX)
        marks.append(("to 0.4 um/px", clock()))
        film_of(work)
        marks.append(("background", clock()))
        maps = network(work)
        marks.append(("network", clock()))
        cells_of(maps, image.shape[:2], um_px, config)
        marks.append(("cells", clock()))
        _scale(network, image, None, config, None)
        marks.append(("scale, where unknown", clock()))
        segment(image, PixelSize(um_px), config)
        marks.append(("whole, scale known", clock()))
        times = {step: 1000 * (now - before) for (_, before), (step, now) in pairwise(marks)}
        least = {step: min(value, least.get(step, value)) for step, value in times.items()}
    return least


def steps_of(samples: list[Sample]) -> Iterator[tuple[str, str]]:
    """(measure, value): each step in the field with fewest and with most leukocytes."""
    counts = [
        len(segment(s.image, PixelSize(0.088), SegmentationConfig()).regions) for s in samples
    ]
    ends = [samples[int(np.argmin(counts))], samples[int(np.argmax(counts))]]
    few, many = (step_times(s.image, 0.088) for s in ends)
    for step in few:
        yield (
            f"step: {step}, ms, {min(counts)} and {max(counts)} leukocytes in 5 MP",
            f"{few[step]:.1f}, {many[step]:.1f}",
        )


def crops_a_second(root: Path) -> Iterator[tuple[str, str]]:
    """Single-cell crops in a second of processor time, decoding not counted."""
    for name in ("pbc_cells", "apl_aml"):
        samples = thinned(list(SETS[name](root)), 60)
        for how, scale in (("known", given(name, samples[0])), ("to be found", None)):
            started = time.process_time()
            for sample in samples:
                segment(sample.image, scale, SegmentationConfig())
            rate = len(samples) / (time.process_time() - started)
            yield f"speed, crops of {name}, scale {how}, crops/s", f"{rate:.0f}"


def mean(values: NDArray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def rows_of_scale(method: Method, name: str, samples: list[Sample]) -> NDArray:
    """1 where the scale found is within 10 % of that of the image's own red cells."""
    known = [s for s in samples if s.own_um_px()]
    found = detections(method, name, known, HOW[0])
    read = [
        (d.pixel_size.um_px if d.pixel_size else 1e-9) / (s.own_um_px() or 0)
        for d, s in zip(found, known, strict=True)
    ]
    return (np.abs(np.log(read)) < np.log(1.1)).astype(float)


def table_of_fields(method: Method, root: Path, limit: int, part: str) -> Iterator[tuple[str, str]]:
    """(measure, value) on fields."""
    fields = thinned(half(list(bccd(root)), part), limit)
    for label, change in CHANGES.items():
        for how in HOW if label == "as it is" else HOW[:2]:
            if method.left_out is None or how != "as one sample":
                rows = rows_of_fields(method, "bccd", changed(fields, change), how)
                yield f"bccd F1, {label}, {how}", interval(rows, f1)
    found = detections(method, "bccd", fields, "scale given")
    shares = [v for d, s in zip(found, fields, strict=True) for v in overlaps(d, s)]
    yield "bccd overlap of boxes, scale given", interval(np.array(shares), mean)
    others = {name: half(list(SETS[name](root)), part) for name in OTHER_FIELDS}
    for name, samples in others.items():
        for how in (HOW[0], HOW[2]):
            yield f"{name} F1, {how}", interval(rows_of_fields(method, name, samples, how), f1)
    of_scale = {"bccd": fields, **others} if method.name == "default" else {}
    for name, samples in of_scale.items():
        right = rows_of_scale(method, name, samples)
        yield f"{name} scale within 10 % (n = {len(right)})", interval(right, mean)
    samples = half(list(all_idb1(root)), part)
    ill = np.array([s.kind == "1" for s in samples])
    for how in (HOW[0], HOW[2]):
        counts = rows_of_fields(method, "all_idb1", samples, how)
        yield f"all_idb1 blast recall, {how}", interval(counts[ill], recall)
        yield f"all_idb1 cells a healthy field, {how}", f"{counts[~ill, 1].mean():.2f}"


def table(method: Method, root: Path, limit: int, part: str) -> Iterator[tuple[str, str]]:
    """(measure, value) for one method."""
    yield from table_of_fields(method, root, limit, part)
    for name in CROPS:
        if not method.knows(name):
            continue
        samples = thinned(half(list(SETS[name](root)), part), limit)
        for how in HOW if method.left_out is None else (HOW[0], HOW[2]):
            for what, values in rows_of_crops(method, name, samples, how).items():
                if len(values):
                    yield f"{name} {what}, {how} (n = {len(values)})", interval(values, mean)
    if method.left_out is not None:
        return
    big = [s for s in all_idb1(root) if s.image.shape[1] > 2000]
    yield "speed, fields of 5 MP, scale to be found, MP/s", speed(method.name, big, None)
    yield "speed, fields of 5 MP, scale known, MP/s", speed(method.name, big, PixelSize(0.088))
    if method.name == "default":
        yield from steps_of(big)
        yield from crops_a_second(root)


CROPS = ("apl_aml", "wbc_masks", "pbc_cells", "platelet", "bone_marrow_cells", "lmu_cells")


def stored(path: Path) -> Network:
    """A network as ``training/leukocytes.py`` writes it."""
    return Network({name: value.astype(np.float32) for name, value in load_file(path).items()})


def data_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows where the data are."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("MILLIE_DATA", "../shared/data"))
    )
    return parser


def main() -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--limit", type=int, default=0, help="about so many images a set; 0: all")
    parser.add_argument("--part", choices=("all", "even", "odd"), default="all")
    parser.add_argument("--left-out", type=Path, help="folder of the folds' networks")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    methods = [Method(name) for name in arguments.methods]
    if arguments.left_out:
        methods.append(
            Method("default", {f: stored(arguments.left_out / f"{f}.safetensors") for f in FOLDS})
        )
    columns = {
        m.name if m.left_out is None else "left out": dict(
            table(m, arguments.data, arguments.limit, arguments.part)
        )
        for m in methods
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
