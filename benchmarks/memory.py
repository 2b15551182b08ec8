"""Peak memory of whole commands against the size of their input.

Run by a person:

    python benchmarks/memory.py predict --counts 1000 10000 100000
    python benchmarks/memory.py segment --counts 10 100 1000

``predict`` calls one patient of a store of that many cells (32 px crops of noise on white; encoder
resnet_small with fresh weights, the fastest per cell: memory does not depend on what is learnt).
``segment`` cuts one patient of that many drawn fields (800 x 600 px, 4 cells each) in this process,
then with two workers. Each line is one command in a process of its own: its largest resident set as
the kernel counted it (of its workers the largest one, beside it), time and load of the machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from millie.bags.store import BagMeta, CellCrop, Store, write_bag
from millie.config import Config
from millie.models.bundle import BundleDescription, save_bundle
from millie.models.encoders import build_encoder, weights_digest
from millie.models.network import build_network
from millie.synthetic import CellType, FilmConfig, draw_field
from millie.types import Cell, ImageKind, Patient, SourceRecord

SIDE_PX = 32
SETTINGS = Config().with_settings([
    f"crops.size_px={SIDE_PX}", "model.encoder=resnet_small", "model.pretrained=false",
])  # fmt: skip

PEAK = """
import resource, sys
from millie.cli.commands import main
sys.argv = ["millie", *sys.argv[1:]]
try:
    main()
finally:
    with open("/proc/self/status") as status:  # ru_maxrss would count the process that started us
        own = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"PEAK {own:.0f} {children:.0f}", file=sys.stderr)
"""


def noisy_cells(count: int) -> Iterator[CellCrop]:
    """Discs of noise on white; a crop in four is new, which is enough for a memory test."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX // 2
    disc = (x**2 + y**2 < 100).astype(np.uint8)
    image = np.full((SIDE_PX, SIDE_PX, 3), 245, np.uint8)
    for i in range(count):
        if i % 4 == 0:
            image = np.full((SIDE_PX, SIDE_PX, 3), 245, np.uint8)
            image[disc > 0] = rng.integers(0, 200, (int(disc.sum()), 3), dtype=np.uint8)
        cell = Cell(0, 100.0 + i, 100.0, 90 + i, 90, 20, 20, 314.0, 50.0)
        yield CellCrop(cell, image, disc * 2)


def write_store(root: Path, count: int) -> None:
    store = Store(root)
    root.mkdir(parents=True)
    patient = Patient("drawn", "AML", ())
    record = SourceRecord("drawn.png", "0" * 64, ImageKind.FIELD, 0.12, 2000, 2000)
    meta = BagMeta(SIDE_PX, SETTINGS.crops.size_um, None, "0" * 64)
    write_bag(store.path_of("drawn"), patient, noisy_cells(count), [record], meta)
    store.describe("drawn", SETTINGS, ["AML"])


def write_bundle(folder: Path) -> None:
    encoder = build_encoder(SETTINGS.model)
    network = build_network(SETTINGS.model, ["AML", "APL"], feature_dim=encoder.dim)
    description = BundleDescription("memory", "1", ("AML", "APL"), "APL")
    cells = torch.randn(8, encoder.dim)
    save_bundle(
        folder, [network.eval()], SETTINGS, description, weights_digest(encoder), golden=cells
    )


def write_fields(folder: Path, count: int) -> None:
    """Fields that differ in their bytes: a repeated file is counted once."""
    folder.mkdir(parents=True)
    config = FilmConfig(width_px=800, height_px=600, um_px=0.12)
    kinds = {CellType.SEGMENTED_NEUTROPHIL: 2, CellType.MYELOBLAST: 2}
    drawn = [draw_field(config, kinds, np.random.default_rng(seed)).image for seed in range(10)]
    for i in range(count):
        image = drawn[i % len(drawn)].copy()
        image[0, 0] = i % 256, i // 256, 0
        Image.fromarray(image).save(folder / f"{i:05d}.png", compress_level=1)


def measure(words: list[str]) -> tuple[float, float, float]:
    """Peak of the process and of its largest child in MB, and seconds."""
    started = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=False
    )
    peaks = [line for line in done.stderr.splitlines() if line.startswith("PEAK")]
    if not peaks:
        raise SystemExit(done.stdout + done.stderr)
    own, children = map(float, peaks[-1].split()[1:])
    return own, children, time.perf_counter() - started


def show(what: str, words: list[str]) -> None:
    own, children, seconds = measure(words)
    load = os.getloadavg()[0]
    print(f"| {what} | {own:.0f} | {children:.0f} | {seconds:.0f} | {load:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["predict", "segment"])
    parser.add_argument("--counts", type=int, nargs="+", required=True)
    arguments = parser.parse_args()
    print("| what | peak MB | largest worker MB | s | load |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_bundle(root / "bundle")
        for count in arguments.counts:
            out, data = root / f"out-{count}", root / f"data-{count}"
            if arguments.what == "predict":
                write_store(data, count)
                words = ["predict", str(root / "bundle"), str(data), "--out", str(out)]
                show(f"predict, {count:,} cells", words)
                continue
            write_fields(data / "drawn", count)
            for engine in (["--engine", "serial"], ["--workers", "2"]):
                words = ["segment", str(data), "--out", str(out / engine[1]), *engine]
                words += ["--set", "segmentation.um_px=0.12"]
                show(f"segment, {count:,} fields, {' '.join(engine)}", words)


if __name__ == "__main__":
    main()
