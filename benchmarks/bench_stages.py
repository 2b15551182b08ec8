"""Each stage beside a named baseline, on drawn images: ``make bench``. For people, never a gate.

Groups put a stage and its baseline into one table; the ratio of their means is the figure that may
be quoted, with the kind of machine.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from millie.config import Config, ModelConfig, PredictionConfig, ReadingConfig
from millie.inference.runtime import feature_runtime
from millie.learning.sampling import EmbeddedCells, draw_steps
from millie.models.aggregators import build_aggregator
from millie.models.encoders import build_encoder
from millie.readers.images import read_image
from millie.segmentation import segment
from millie.synthetic import CellType, FilmConfig, draw_field
from millie.types import ImageSource, PixelSize

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pytest_benchmark.fixture import BenchmarkFixture

UM_PX = 0.12
BATCH = 32


@pytest.fixture(scope="module")
def film() -> NDArray[np.uint8]:
    """A 5 MP field with 40 leukocytes."""
    kinds = {CellType.SEGMENTED_NEUTROPHIL: 20, CellType.LYMPHOCYTE: 10, CellType.MYELOBLAST: 10}
    config = FilmConfig(width_px=2592, height_px=1944, um_px=UM_PX)
    return draw_field(config, kinds, np.random.default_rng(0)).image


@pytest.fixture(scope="module")
def file(film: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.jpg"
    Image.fromarray(film).save(path, quality=90)
    return path


@pytest.fixture(scope="module")
def crops() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 255, (BATCH, 224, 224, 3), dtype=np.uint8)


@pytest.mark.benchmark(group="read a 5 MP JPEG")
def test_read_image(benchmark: BenchmarkFixture, file: Path) -> None:
    source, limits = ImageSource(file, "film.jpg"), ReadingConfig()
    assert benchmark(lambda: read_image(source, limits)).image.shape == (1944, 2592, 3)


@pytest.mark.benchmark(group="read a 5 MP JPEG")
def test_baseline_pillow(benchmark: BenchmarkFixture, file: Path) -> None:
    data = file.read_bytes()
    benchmark(lambda: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.benchmark(group="find leukocytes in 5 MP, um/px known")
@pytest.mark.parametrize("method", ["default", "paper", "released-code"])
def test_segment(benchmark: BenchmarkFixture, film: NDArray[np.uint8], method: str) -> None:
    config = Config().with_settings([f"segmentation.method={method}"]).segmentation
    scale = PixelSize(UM_PX)
    benchmark.pedantic(lambda: segment(film, scale, config), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group=f"embed {BATCH} cells")
@pytest.mark.parametrize("encoder", ["efficientnet_lite0", "blood_cell"])
@pytest.mark.parametrize("runtime", ["openvino", "torch"])
def test_embed(
    benchmark: BenchmarkFixture, crops: NDArray[np.uint8], encoder: str, runtime: str
) -> None:
    module = build_encoder(ModelConfig(encoder=encoder))
    features = feature_runtime(module, PredictionConfig(runtime=runtime))
    found = benchmark.pedantic(lambda: features(crops), rounds=3, warmup_rounds=1)
    assert found.shape == (BATCH, module.dim)


@pytest.mark.benchmark(group="fuse 8 bags of 50 cells, 1280 features")
@pytest.mark.parametrize("name", ["max", "mean", "attention"])
def test_fuse(benchmark: BenchmarkFixture, name: str) -> None:
    aggregator = build_aggregator(ModelConfig(aggregator=name), 1280)
    cells = torch.randn(8, 50, 1280)
    with torch.no_grad():
        benchmark(lambda: aggregator.pool(cells))


@pytest.mark.benchmark(group="draw the steps of an epoch, 82 patients")
def test_draw_steps(benchmark: BenchmarkFixture) -> None:
    source = EmbeddedCells({f"p{i}": np.zeros((56, 82), np.float32) for i in range(82)})
    patients = [f"p{i}" for i in range(82)]
    rng = np.random.default_rng(0)
    steps = benchmark(lambda: list(draw_steps(source, patients, Config(), rng)))
    assert sum(len(step) for step in steps) == 82


@pytest.mark.benchmark(group="forward and backward of EfficientNet-Lite0, 8 cells")
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_train_encoder(
    benchmark: BenchmarkFixture, precision: torch.dtype, layout: torch.memory_format
) -> None:
    encoder = build_encoder(ModelConfig(encoder="efficientnet_lite0"))
    for weight in encoder.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=layout)
    cells = torch.rand(8, 3, 224, 224)

    def step() -> None:
        with torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
            features = encoder(cells)
        torch.autograd.backward(features.float().amax(dim=0).sum())

    benchmark.pedantic(step, rounds=3, warmup_rounds=1)
