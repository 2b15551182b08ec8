"""Whole slides: cells found of those drawn, time and memory of whole commands.

Run by a person:

    python benchmarks/slides.py --folder /tmp/slides
    python benchmarks/slides.py --folder /tmp/slides --flat

A slide of 20,480 x 20,480 px (0.25 um/px, seven of twenty columns monolayer) is drawn into the
folder once. Then each line is one command in a process of its own: wall and processor time, its
largest resident set as the kernel counted it (of its workers the largest one, beside it), and the
cells. Recall and precision are of ``detect`` without its limit of cells, over the cells drawn in
what was read; recall leaves out cells that an edge within the drawing cuts. ``--flat`` searches a
copy without smaller levels.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from memory import PEAK
from millie.config import Config
from millie.readers.fields import read_fields
from millie.synthetic import TrueCell
from millie.synthetic.slide import SlideConfig, write_slide
from millie.types import ImageSource

SIDE = SlideConfig()
NEAR_UM = 4.0
ALL = "reading.slide_cells=1000000"


def drawn(folder: Path, *, flat: bool) -> tuple[Path, list[TrueCell]]:
    """The slide and its cells, drawn if they are not there."""
    folder.mkdir(parents=True, exist_ok=True)
    slide = folder / ("flat.tif" if flat else "slide.tif")
    known = slide.with_suffix(".json")
    if not known.exists():
        cells = write_slide(slide, SlideConfig(pyramid=not flat))
        known.write_text(json.dumps([asdict(cell) for cell in cells]))
    return slide, [TrueCell(**cell) for cell in json.loads(known.read_text())]


def run(*words: str) -> None:
    """Run a command and print its time, memory and what it says of cells."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", PEAK, *words], capture_output=True, text=True, check=False
    )
    wall, after = time.perf_counter() - start, os.times()
    cpu = sum(after[2:4]) - sum(before[2:4])
    if done.returncode > 1:
        sys.exit(done.stderr)
    own, worker = done.stderr.split("PEAK ")[1].split()[:2]
    told = [line.strip() for line in done.stdout.splitlines() if "whole slide:" in line]
    print(f"{words[0]}: {' '.join(told)}")
    print(f"    {wall:.0f} s, {cpu:.0f} s of one core; {own} MB, workers {worker} MB", flush=True)


def compare(table: Path, slide: Path, truth: list[TrueCell]) -> None:
    """Recall and precision of a table of ``detect``."""
    with table.open(encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    found = np.array([(float(row["x_px"]), float(row["y_px"])) for row in rows])
    fields = read_fields(ImageSource(slide, slide.name), Config().reading)
    cores = np.array([one.place.core for one in fields if one.place])
    places = np.array([(cell.x_px, cell.y_px) for cell in truth])
    x, y = places[:, 0, None], places[:, 1, None]
    read = ((cores[:, 0] <= x) & (x < cores[:, 2]) & (cores[:, 1] <= y) & (y < cores[:, 3])).any(1)
    cut = np.array([cell.at_border for cell in truth])
    apart = np.hypot(*(places[:, None] - found[None]).transpose(2, 0, 1)) * SIDE.um_px
    wanted = read & ~cut
    hits = apart[wanted].min(axis=1) < NEAR_UM
    true = apart.min(axis=0) < NEAR_UM
    print(
        f"    {len(cores)} fields; recall {hits.mean():.4f} of {wanted.sum()} drawn cells, "
        f"precision {true.mean():.3f} of {len(found)} found"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--flat", action="store_true")
    options = parser.parse_args()
    slide, truth = drawn(options.folder, flat=options.flat)
    size = slide.stat().st_size / 1e6
    load = os.getloadavg()[0]
    print(f"{slide}: {size:.0f} MB, {len(truth)} cells drawn; load {load:.1f}", flush=True)
    table = options.folder / "cells.csv"
    run("detect", str(slide), "--out", str(table), "--set", ALL)
    compare(table, slide, truth)
    run("detect", str(slide), "--out", str(table))
    if not options.flat:
        run("predict", str(slide), "--out", str(options.folder / "calls"), "--workers", "1")


if __name__ == "__main__":
    main()
