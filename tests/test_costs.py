"""What a patient costs, counted: a change that opens, decodes or encodes more fails here.

Counts, unlike seconds, are the same on every machine. A lower number is progress: write it down. A
higher one needs a reason.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from millie import pipeline
from millie.bags import bagfile, embeddings
from millie.bags.store import BagReader, Store
from millie.evaluation import folds
from millie.inference import predict as prediction
from millie.inference.embed import embed_bag
from millie.inference.runtime import TorchRuntime
from millie.learning import material
from millie.models.bundle import load_bundle

if TYPE_CHECKING:
    from millie.config import Config


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Counts of files opened by suffix, pictures decoded by format, and batches encoded."""
    seen: Counter[str] = Counter()
    opened = io.open
    decode, crop, encode = ImageFile.ImageFile.load, bagfile._decode, TorchRuntime.__call__
    open_file = bagfile.open_file

    def note_open(file: Any, *args: Any, **more: Any) -> Any:
        if isinstance(file, str | Path):
            seen[f"open {Path(file).suffix}"] += 1
        return opened(file, *args, **more)

    def note_load(image: Any) -> Any:
        seen[f"decode {image.format}"] += not getattr(image, "_counted", False)
        image._counted = True
        return decode(image)

    def note_crop(data: bytes, size_px: int) -> Any:
        seen["decode crop"] += 1
        return crop(data, size_px)

    def note_encode(runtime: TorchRuntime, images: Any) -> Any:
        seen["encoder calls"] += 1
        seen["encoded cells"] += len(images)
        return encode(runtime, images)

    def note_bag(*args: Any, **more: Any) -> Any:
        seen["open HDF5"] += 1
        return open_file(*args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(io, "open", note_open)
        patch.setattr(ImageFile.ImageFile, "load", note_load)
        patch.setattr(bagfile, "_decode", note_crop)
        patch.setattr(TorchRuntime, "__call__", note_encode)
        for module in (bagfile, embeddings):
            patch.setattr(module, "open_file", note_bag)
        yield seen


@pytest.fixture
def film(films: Path, tmp_path: Path) -> Path:
    """One patient of three fields; the files differ, or copies would be left out."""
    folder = tmp_path / "patient"
    folder.mkdir()
    source = min(p for p in films.parent.rglob("*") if p.suffix in {".png", ".jpg"})
    with Image.open(source) as image:
        pixels = np.asarray(image.convert("RGB")).copy()
    for i in range(3):
        pixels[0, 0] = i
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_segment_decodes_each_image_once(
    film: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = pipeline.read_cohort([film])
    config = tiny_config.with_settings(["segmentation.um_px=0.12"])
    with counting(monkeypatch) as seen:
        summary = pipeline.segment(cohort, tmp_path / "store", config)
    assert summary.done == 1
    assert seen["decode PNG"] == 3
    assert seen["open .png"] <= 3
    assert seen["open HDF5"] <= 2
    assert seen["decode crop"] == 0
    with counting(monkeypatch) as seen:
        assert pipeline.segment(cohort, tmp_path / "store", config).skipped == 1
    assert seen["decode PNG"] == 0


def test_a_call_decodes_and_encodes_each_cell_once(
    tiny_store: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["prediction.runtime=torch", "prediction.batch_size=4"]
    config = tiny_config.with_settings(words)
    bundle = load_bundle(pipeline.train(tiny_store, tmp_path / "model", config).out)
    runtimes = prediction.bundle_runtimes(bundle, config.prediction)
    path = Store(tiny_store).bags()[0]
    with counting(monkeypatch) as seen, BagReader(path) as reader:
        prediction.predict_bag(bundle, reader, runtimes, config.prediction)
        cells = reader.n_cells
    assert seen["decode crop"] == cells
    assert seen["encoded cells"] == cells
    assert seen["encoder calls"] == -(-cells // 4)
    assert seen["open HDF5"] == 1


def test_cached_embeddings_decode_and_encode_nothing(
    tiny_store: Path, tiny_config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config.with_settings(["prediction.runtime=torch"])
    encoder = material.build_encoder(config.model)
    runtime = TorchRuntime(encoder)
    path = Store(tiny_store).bags()[1]
    with BagReader(path) as reader:
        embed_bag(reader, runtime)
    with counting(monkeypatch) as seen, BagReader(path) as reader:
        embed_bag(reader, runtime)
    assert seen["encoder calls"] == seen["decode crop"] == 0
    assert seen["open HDF5"] == 2, "the bag and its cache"


def test_a_fold_reads_no_cell_and_looks_for_winners_only_where_they_are_shown(
    tiny_store: Path, tiny_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config.with_settings(["evaluation.repeats=2", "prediction.runtime=torch"])
    pipeline.crossval(tiny_store, tmp_path / "first", config)
    explained = []
    score = folds.score_bag

    def note(*args: Any, **more: Any) -> Any:
        explained.append(more["explain"])
        return score(*args, **more)

    monkeypatch.setattr(folds, "score_bag", note)
    with counting(monkeypatch) as seen:
        pipeline.crossval(tiny_store, tmp_path / "again", config)
    patients = len(Store(tiny_store).bags())
    assert sum(explained) == patients, "repeat 0 alone"
    assert seen["encoder calls"] == 0
