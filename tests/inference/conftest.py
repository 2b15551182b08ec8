"""A bundle of small networks, a cheap runtime, and bags of noise for the tests of inference."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from millie.bags.store import BagMeta, BagReader, CellCrop, write_bag
from millie.config import Config
from millie.models.bundle import Bundle, BundleDescription, save_bundle
from millie.models.network import build_network
from millie.types import Cell, ImageKind, Patient, SourceRecord

SIZE_PX = 32
DIM = 48


class BlockMeans:
    """Features without weights: mean colours of the 16 blocks of a crop. Records its batches."""

    name = "blocks"
    dim = DIM
    digest = hashlib.sha256(b"blocks").hexdigest()

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(images))
        blocks = images.reshape(len(images), 4, SIZE_PX // 4, 4, SIZE_PX // 4, 3)
        means = blocks.astype(np.float64).mean(axis=(2, 4)) / 255
        return means.reshape(len(images), DIM).astype(np.float32)


@pytest.fixture
def runtime() -> BlockMeans:
    return BlockMeans()


def config_for(*words: str) -> Config:
    base = [
        "crops.size_px=32",
        "crops.size_um=25",
        "model.hidden=[16]",
        "model.encoder=resnet_small",
        "model.background=keep",  # the features of the tests are those of whole crops
    ]
    return Config().with_settings([*base, *words])


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """A saved and loaded bundle over features of :class:`BlockMeans`, with random heads."""

    def make(
        aggregator: str = "max",
        labels: Sequence[str] = ("AML", "APL"),
        networks: int = 1,
        reference: dict[str, torch.Tensor] | None = None,
        **description: object,
    ) -> Bundle:
        config = config_for(f"model.aggregator={aggregator}")
        members = [build_network(config.model, labels, DIM, seed=i) for i in range(networks)]
        generator = torch.Generator().manual_seed(0)
        for network in members:
            network.standardiser.fit(0.5 + 0.05 * torch.randn(200, DIM, generator=generator))
        positive = "APL" if "APL" in labels else labels[-1]
        return save_bundle(
            tmp_path / f"bundle-{aggregator}-{networks}-{len(list(tmp_path.iterdir()))}",
            members,
            config,
            BundleDescription(
                **{"name": "test", "version": "1.0.0", "labels": tuple(labels),
                   "positive": positive, **description},
            ),
            "0" * 64,
            reference=reference,
        )  # fmt: skip

    return make


def noise_crops(
    count: int, seed: int = 0, order: Sequence[int] | None = None, **cell: object
) -> Iterator[CellCrop]:
    """Crops of noise around a colour of their own; ``order`` permutes them."""
    rng = np.random.default_rng(seed)
    blotches = rng.integers(0, 200, (count, 4, 4, 3), dtype=np.uint8)
    noise = rng.integers(0, 56, (count, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)  # no two means tie
    mask = np.zeros((SIZE_PX, SIZE_PX), np.uint8)
    mask[8:24, 8:24] = 1
    for i in range(count) if order is None else order:
        image = blotches[i].repeat(8, axis=0).repeat(8, axis=1) + noise[i]
        yield CellCrop(Cell(0, float(i), 0, 0, 0, 9, 9, 60, **cell), image, mask)


@pytest.fixture
def make_bag(tmp_path: Path) -> Iterator[Callable[..., BagReader]]:
    """An open bag of a number of cells; closed at the end of the test."""
    readers: list[BagReader] = []

    def make(
        count: int,
        seed: int = 0,
        order: Sequence[int] | None = None,
        crops: Sequence[CellCrop] | None = None,
        size_um: float = 25,
        source: SourceRecord | None = None,
        **cell: object,
    ) -> BagReader:
        path = tmp_path / "bags" / f"{len(readers)}.h5"
        source = source or SourceRecord("a.jpg", "", ImageKind.CELL, None, 1, 1)
        cells = noise_crops(count, seed, order, **cell) if crops is None else iter(crops)
        meta = BagMeta(SIZE_PX, size_um, None, "d")
        write_bag(path, Patient("p", None, ()), cells, [source], meta)
        readers.append(BagReader(path))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()
