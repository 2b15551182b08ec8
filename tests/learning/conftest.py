"""Small problems with a planted answer: a bag is positive if one of its cells has a feature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from millie.bags.store import BagMeta, BagReader, CellCrop, Store, write_bag
from millie.config import Config
from millie.learning.ensemble import Material
from millie.learning.sampling import EmbeddedCells
from millie.learning.train import Task
from millie.models.encoder import Encoder
from millie.models.encoders import ENCODERS, EncoderSpec
from millie.types import Cell, ImageKind, Patient, SourceRecord

DIM = 12
CLASSES = ("AML", "APL")


class TinyEncoder(Encoder):
    """Two convolutions with batch normalisation between them: 6 features of a 16 px crop."""

    def __init__(self) -> None:
        super().__init__("tiny", 6, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1)
        )

    def feature_maps(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.layers(images)
        return maps


@pytest.fixture(scope="session")
def tiny_encoder() -> Callable[[], Encoder]:
    """Builds the same small encoder each time, with batch statistics away from 0 and 1."""

    def build() -> Encoder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            encoder = TinyEncoder()
            encoder.train()
            encoder(torch.rand(32, 3, 16, 16))
            return encoder.eval()

    return build


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny tensors: more threads than one only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def tiny_in_table(tiny_encoder: Callable[[], Encoder]) -> Iterator[None]:
    """``model.encoder=tiny`` names the small encoder while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        spec = EncoderSpec("tiny", 6, 16, "(x - 0.5) / 0.25", "", "", tiny_encoder)
        patch.setitem(ENCODERS, "tiny", spec)
        yield


def planted(n: int, seed: int = 0, strength: float = 4.0) -> tuple[dict, dict[str, str]]:
    """Embeddings of ``n`` patients of each class; two of the APL cells have feature 3 raised."""
    rng = np.random.default_rng(seed)
    features, labels = {}, {}
    for label in CLASSES:
        for i in range(n):
            cells = rng.normal(size=(int(rng.integers(6, 14)), DIM)).astype(np.float32)
            if label == "APL":
                cells[:2, 3] += strength
            features[f"{label.lower()}-{i:02d}"] = cells
            labels[f"{label.lower()}-{i:02d}"] = label
    return features, labels


@pytest.fixture
def toy() -> tuple[EmbeddedCells, dict[str, str]]:
    """Twelve patients of each of two classes."""
    features, labels = planted(12)
    return EmbeddedCells(features), labels


@pytest.fixture
def toy_task(toy: tuple[EmbeddedCells, dict[str, str]]) -> Task:
    """Nine patients of each class to train on, three to validate on."""
    patients = sorted(toy[1])
    validation = tuple(p for p in patients if int(p[-2:]) >= 9)
    train = tuple(p for p in patients if p not in validation)
    return Task(CLASSES, toy[1], train, validation, seed=0)


@pytest.fixture
def quick() -> Config:
    """Settings under which the small problems are solved within a second."""
    return Config().with_settings([
        "model.hidden=[8]", "model.dropout=0.1", "training.optimiser=adamw",
        "training.learning_rate=0.02", "training.max_epochs=12", "training.cells_per_step=6",
        "training.ensemble=1", "training.weight_decay=0.01", "evaluation.bootstrap=100",
        "model.aggregator=max", "model.background=keep",
    ])  # fmt: skip


@pytest.fixture(scope="session")
def toy_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Six patients of each class, 16 px crops; some cells of APL patients are dark red.

    Red cells of APL patients look smaller.
    """
    root = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(5)
    config = Config().with_settings(["crops.size_px=16"])
    for label in CLASSES:
        for i in range(6):
            patient = Patient(f"{label.lower()}-{i:02d}", label, ())
            _write_patient(Store(root).path_of(patient.id), patient, rng, config)
    Store(root).describe("toy", config, CLASSES)
    return Store(root)


def _write_patient(path: Path, patient: Patient, rng: np.random.Generator, config: Config) -> None:
    crops = []
    for j in range(int(rng.integers(6, 10))):
        image = rng.integers(150, 200, (16, 16, 3), dtype=np.uint8)
        planted_here = patient.label == "APL" and j < 3
        if planted_here:
            image[4:12, 4:12] = (160, 10, 40)
        mask = np.zeros((16, 16), np.uint8)
        mask[4:12, 4:12] = 1
        cell = Cell(
            0, 10.0 * j, 5.0, 10 * j, 0, 8, 8, 64.0, smudge=j == 4,
            label="promyelocyte" if planted_here else "lymphocyte",
        )  # fmt: skip
        crops.append(CellCrop(cell, image, mask))
    facts = {"scale_source": "given", "over_stated": 1.1 if patient.label == "APL" else 1.0}
    sources = [
        SourceRecord("field.png", "0" * 64, ImageKind.FIELD, 0.1, 100, 200, diagnostics=facts)
    ]
    meta = BagMeta(16, 25.0, 0.1, config.digest("reading", "segmentation", "crops"))
    write_bag(path, patient, crops, sources, meta)


def colour_features(store: Store) -> EmbeddedCells:
    """A frozen encoder of four features: mean colour of the centre, and its contrast."""
    features = {}
    for bag in store.index():
        with BagReader(bag.path) as reader:
            images = reader.images(0, reader.n_cells).astype(np.float32) / 255
        centre = images[:, 5:11, 5:11].mean(axis=(1, 2))
        contrast = images.mean(axis=(1, 2, 3))[:, None] - centre.mean(axis=1, keepdims=True)
        features[bag.patient] = np.concatenate([centre, contrast], axis=1)
    return EmbeddedCells(features)


@pytest.fixture(scope="session")
def toy_material(toy_store: Store) -> Material:
    """The store's cells by that encoder."""
    source = colour_features(toy_store)
    return Material(source, source.dim)
