"""The table of docs/performance.md: each stage and the whole, as ratios within this run.

Run by a person on a quiet machine: ``python benchmarks/performance.py`` (three to four minutes on
two cores). Inputs are drawn or noise, so nobody needs data. ``CPU`` is the time of one core that a
stage takes; ``wall`` is what a user waits, and depends on what else the machine does: the load is
printed. Floors stand beside: arithmetic against this machine's own float32 matrix product, bytes
against a copy in memory.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from millie import pipeline
from millie.bags.loading import collate
from millie.bags.store import BagMeta, BagReader, CellCrop, Store, write_bag, write_embeddings
from millie.config import Config, ModelConfig, PredictionConfig, ReadingConfig, load
from millie.engines.seam import ProcessEngine, SerialEngine, available_cores
from millie.inference.embed import cache_key
from millie.inference.runtime import feature_runtime, one_thread
from millie.models.bundle_folder import DEFAULT_MODEL
from millie.models.encoders import build_encoder
from millie.readers.images import read_image
from millie.segmentation import segment
from millie.synthetic import CellType, FilmConfig, draw_field
from millie.types import Cell, ImageKind, ImageSource, Patient, PixelSize, SourceRecord

UM_PX = 0.12
FLOP = {"efficientnet_lite0": 0.78e9}
"""Of a 224 px crop: 0.39e9 multiply-adds (EfficientNet-Lite, TensorFlow model card)."""

Timing = tuple[float, float]
"""CPU and wall seconds."""


def timed(work: Callable[[], object], repeats: int = 3) -> Timing:
    """The best of some repeats after one to warm up."""
    work()
    found = []
    for _ in range(repeats):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(f[0] for f in found), min(f[1] for f in found)


def row(what: str, figure: str, against: str = "", floor: str = "") -> None:
    print(f"| {what} | {figure} | {against} | {floor} | {os.getloadavg()[0]:.1f} |", flush=True)


def field(seed: int, width_px: int = 2592, height_px: int = 1944, cells: int = 40) -> NDArray:
    kinds = {CellType.SEGMENTED_NEUTROPHIL: cells // 2, CellType.MYELOBLAST: cells - cells // 2}
    config = FilmConfig(width_px=width_px, height_px=height_px, um_px=UM_PX)
    return draw_field(config, kinds, np.random.default_rng(seed)).image


def matrix_product_flop_s() -> float:
    a = np.random.default_rng(0).random((1024, 1024), np.float32)
    return 2 * 1024**3 / timed(lambda: a @ a, 5)[1]


def stages_of_a_field(folder: Path) -> None:
    path = folder / "film.jpg"
    image = field(0)
    Image.fromarray(image).save(path, quality=90)
    data, source = path.read_bytes(), ImageSource(path, "film.jpg")
    ours = timed(lambda: read_image(source, ReadingConfig()))
    bare = timed(lambda: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    row("read a 5 MP JPEG, with checks, digest and scale",
        f"{1000 * ours[0]:.0f} ms CPU, {len(data) / 1e6 / ours[0]:.0f} MB/s",
        f"{ours[0] / bare[0]:.2f} x the time of bare Pillow",
        f"{image.nbytes / 1e6:.0f} MB of pixels")  # fmt: skip
    scale = PixelSize(UM_PX)
    times = {}
    for method in ("default", "released-code"):
        config = Config().with_settings([f"segmentation.method={method}"]).segmentation
        times[method] = timed(lambda c=config: segment(image, scale, c), 2)[0]
    both = times["default"] + ours[0]
    row("find the leukocytes of a 5 MP field, decoding included",
        f"{both:.3f} s CPU; decoding is {ours[0] / both:.0%}",
        f"{times['released-code'] / times['default']:.1f} x as fast as `released-code`, without "
        "decoding")  # fmt: skip


def encoders() -> None:
    crops = np.random.default_rng(0).integers(0, 255, (32, 224, 224, 3), dtype=np.uint8)
    peak = matrix_product_flop_s()
    kinds = ["openvino", "torch", *(["onnx"] if find_spec("onnxscript") else [])]
    for name in ("efficientnet_lite0", "blood_cell"):
        module = build_encoder(ModelConfig(encoder=name))
        rates = {}
        for kind in kinds:
            runtime = feature_runtime(module, PredictionConfig(runtime=kind))
            rates[kind] = len(crops) / timed(lambda r=runtime: r(crops), 2)[1]
        floor = f"{peak / FLOP[name]:.0f} cells/s (0.78 GFLOP a cell)" if name in FLOP else ""
        others = ", ".join(f"{kind} {rates[kind]:.0f}" for kind in kinds[1:])
        row(f"embed 32 cells, {name}", f"{rates['openvino']:.0f} cells/s (openvino)",
            f"{rates['openvino'] / rates['torch']:.1f} x torch eager ({others})",
            floor)  # fmt: skip


def training_steps() -> None:
    torch.manual_seed(0)
    bags = [torch.randn(50, 1280) for _ in range(8)]
    mean, std = torch.randn(1280), torch.rand(1280) + 0.5

    def plain() -> torch.Tensor:
        cells, mask = collate(bags)
        return ((cells - mean) / std).masked_fill(~mask[..., None], -torch.inf).amax(dim=1)

    def maxima_first() -> torch.Tensor:
        return (torch.stack([bag.amax(dim=0) for bag in bags]) - mean) / std

    assert torch.equal(plain(), maxima_first())
    copied = torch.cat(bags)
    with one_thread():  # as in training
        slow, fast = timed(plain, 20)[0], timed(maxima_first, 20)[0]
        floor = timed(copied.clone, 20)[0]
    row("fuse the 8 bags of a step by maximum, 1280 features", f"{1e6 * fast:.0f} us CPU",
        f"{slow / fast:.1f} x as fast as padding and standardising first, same bits",
        f"{1e6 * floor:.0f} us: a copy of the 2 MB")  # fmt: skip


def cells_of(count: int, side_px: int, rng: np.random.Generator) -> Iterator[CellCrop]:
    for i in range(count):
        image = rng.integers(0, 255, (side_px, side_px, 3), dtype=np.uint8)
        cell = Cell(0, 100.0 + i, 100.0, 90, 90, 20, 20, 314.0, 50.0)
        yield CellCrop(cell, image, np.ones((side_px, side_px), np.uint8))


def cross_validation(folder: Path) -> None:
    """82 patients, 22 of the rarer class, 56 cells each with 1280 cached features."""
    words = ["crops.size_px=32", "evaluation.repeats=10"]
    config = load(profile="whole-crop").with_settings(words)  # the figures before were made so
    encoder = build_encoder(config.model)
    runtime = feature_runtime(encoder, config.prediction)
    key = cache_key(runtime, runtime.digest, "keep")
    store, rng = Store(folder / "cached"), np.random.default_rng(0)
    store.root.mkdir()
    meta = BagMeta(32, config.crops.size_um, None, "0" * 64)
    for i in range(82):
        label = "APL" if i < 22 else "AML"
        path = store.path_of(f"patient {i:02d}")
        digest = f"{i:064x}"
        record = SourceRecord(f"{i}.png", digest, ImageKind.FIELD, UM_PX, 2000, 2000)
        write_bag(
            path, Patient(f"patient {i:02d}", label, ()), cells_of(56, 32, rng), [record], meta
        )
        features = rng.normal(0.1 * (label == "APL"), 1, (56, 1280)).astype(np.float32)
        with BagReader(path) as reader:
            write_embeddings(path, key, features, reader.coordinates())
    store.describe("noise", config, ["AML", "APL"])
    cpu, wall = time.process_time(), time.perf_counter()
    pipeline.crossval(store.root, folder / "study", config)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    row("cross-validation of 82 patients on cached embeddings, 3 x 10, report included",
        f"{wall:.0f} s wall, {cpu:.0f} s CPU")  # fmt: skip


def cut_cells(folder: Path) -> None:
    images, n_bytes = folder / "films", 0
    for patient in range(8):
        (images / f"p{patient}").mkdir(parents=True)
        for i in range(2):
            path = images / f"p{patient}" / f"{i}.jpg"
            Image.fromarray(field(2 * patient + i, 1296, 972, 12)).save(path, quality=90)
            n_bytes += path.stat().st_size
    cohort = pipeline.read_cohort([images])
    config = Config().with_settings([f"segmentation.um_px={UM_PX}"])
    walls, cells = {}, 0
    for workers in (1, 2):
        started = time.perf_counter()
        summary = pipeline.segment(
            cohort, folder / f"store{workers}", config, ProcessEngine(workers)
        )
        walls[workers], cells = time.perf_counter() - started, summary.n_cells
    row("segment 8 patients with 2 fields of 1.3 MP",
        f"{cells / walls[2]:.0f} cells/s, {8 * 60 / walls[2]:.0f} patients/min, "
        f"{n_bytes / 1e6 / walls[2]:.1f} MB/s with 2 workers",
        f"{walls[1] / walls[2]:.2f} x one worker", f"2 x ({available_cores()} cores)")  # fmt: skip


def one_patient(folder: Path) -> None:
    """A hundred single-cell images, from the shell and with everything loaded."""
    images = folder / "hundred"
    images.mkdir()
    tile = field(5, 2592, 1944, 60)
    for i in range(100):
        top, left = 180 * (i // 12), 210 * (i % 12)
        Image.fromarray(tile[top : top + 360, left : left + 360]).save(images / f"{i:03d}.png")
    words = ["--set", f"segmentation.um_px={UM_PX}", "--set", "prediction.min_cells=1"]
    command = [sys.executable, "-m", "millie", "predict", str(images)]
    started = time.perf_counter()
    subprocess.run(  # noqa: S603 - our own command
        [*command, "--out", str(folder / "shell"), *words], capture_output=True, check=False
    )
    shell = time.perf_counter() - started
    settings = [word for word in words if word != "--set"]
    pipeline.predict(
        DEFAULT_MODEL, [images], folder / "warm", settings=settings, engine=SerialEngine()
    )
    parts: dict[str, float] = {}

    def note(what: str, _done: int, _total: int) -> None:
        parts.setdefault(what, time.perf_counter())

    started = time.perf_counter()
    with redirect_stdout(io.StringIO()):
        pipeline.predict(
            DEFAULT_MODEL, [images], folder / "again", settings=settings,
            engine=SerialEngine(), progress=note,
        )  # fmt: skip
    ended = time.perf_counter()
    cut, called = parts["segment"], parts["predict"]
    row("a patient of 100 single-cell images, from the shell", f"{shell:.1f} s wall")
    row("the same, libraries loaded, one process",
        f"{ended - started:.1f} s wall: model {cut - started:.1f}, cells {called - cut:.1f}, "
        f"call and report {ended - called:.1f}")  # fmt: skip
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "millie", "--help"], capture_output=True, check=True)
    row("`millie --help`", f"{time.perf_counter() - started:.2f} s wall")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="names of the functions below, to run a part")
    only = parser.parse_args().only
    print(f"{available_cores()} cores, torch {torch.__version__}, load {os.getloadavg()}\n")
    print("| stage | measured | against the baseline | floor | load |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        parts: dict[str, Callable[[], None]] = {
            "one_patient": lambda: one_patient(root),
            "cut cells": lambda: cut_cells(root),
            "stages_of_a_field": lambda: stages_of_a_field(root),
            "encoders": encoders,
            "training_steps": training_steps,
            "cross_validation": lambda: cross_validation(root),
        }
        for name, part in parts.items():
            if not only or name in only:
                part()


if __name__ == "__main__":
    main()
