from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from millie.config import ModelConfig, PredictionConfig
from millie.errors import BundleError, MissingPackageError
from millie.inference.runtime import OpenVinoRuntime, TorchRuntime, feature_runtime
from millie.models.encoders import Encoder, build_encoder, new_encoder


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return new_encoder("resnet_small").eval()


@pytest.fixture(scope="module")
def openvino(encoder: Encoder) -> OpenVinoRuntime:
    return OpenVinoRuntime(encoder)


def noise(count: int, size_px: int = 64) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)


def test_openvino_equals_torch(encoder: Encoder, openvino: OpenVinoRuntime) -> None:
    images = noise(5)
    expected, found = TorchRuntime(encoder)(images), openvino(images)
    assert found.dtype == np.float32
    assert found.shape == (5, encoder.dim) == (5, openvino.dim)
    assert np.abs(found - expected).max() <= 1e-4


@pytest.mark.parametrize("name", ["resnet_small", "efficientnet_lite0"])
def test_onnx_equals_torch(name: str) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the extra onnx is not installed")
    encoder = new_encoder(name)
    runtime = feature_runtime(encoder, PredictionConfig(runtime="onnx"))
    for count in (0, 1, 5):
        images = noise(count)
        found = runtime(images)
        assert (found.dtype, found.shape) == (np.float32, (count, encoder.dim))
        if count:
            assert np.abs(found - TorchRuntime(encoder)(images)).max() <= 1e-4


def test_onnx_without_its_packages_says_what_to_install(
    encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"runtime 'onnx' needs .* 'millie\[onnx\]'"):
        feature_runtime(encoder, PredictionConfig(runtime="onnx"))


@pytest.mark.parametrize("kind", ["torch", "openvino"])
def test_a_batch_equals_one_by_one(encoder: Encoder, openvino: OpenVinoRuntime, kind: str) -> None:
    runtime = openvino if kind == "openvino" else TorchRuntime(encoder)
    images = noise(4)
    single = np.concatenate([runtime(images[i : i + 1]) for i in range(4)])
    np.testing.assert_allclose(runtime(images), single, atol=1e-5)
    np.testing.assert_array_equal(runtime(images), runtime(images))
    assert runtime(images[:0]).shape == (0, encoder.dim)


def test_openvino_takes_any_number_of_cells(encoder: Encoder, openvino: OpenVinoRuntime) -> None:
    images = noise(37)  # two whole batches and a part of one
    found = openvino(images)
    assert np.abs(found - TorchRuntime(encoder)(images)).max() <= 1e-4
    np.testing.assert_array_equal(found[30:], openvino(images[30:]))


def test_features_do_not_depend_on_the_state_of_the_module(encoder: Encoder) -> None:
    images = noise(2)
    expected = TorchRuntime(encoder)(images)
    encoder.train()
    try:
        np.testing.assert_array_equal(TorchRuntime(encoder)(images), expected)
        assert np.abs(OpenVinoRuntime(encoder)(images) - expected).max() <= 1e-4
        assert encoder.training, "left as it was"
    finally:
        encoder.eval()


def test_the_configuration_chooses(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {w: feature_runtime(encoder, PredictionConfig(runtime=w)).name
             for w in ("auto", "torch", "openvino")}  # fmt: skip
    assert names == {"auto": "openvino", "torch": "torch", "openvino": "openvino"}
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r"prediction\.runtime=torch"):
        feature_runtime(encoder, PredictionConfig(runtime="openvino"))


def test_both_runtimes_state_the_weights(encoder: Encoder, openvino: OpenVinoRuntime) -> None:
    assert openvino.digest == TorchRuntime(encoder).digest
    other = new_encoder("resnet_small")
    with torch.no_grad():
        next(iter(other.parameters())).add_(1e-3)
    assert TorchRuntime(other).digest != openvino.digest


def test_features_that_are_not_finite_are_refused() -> None:
    encoder = new_encoder("resnet_small")
    with torch.no_grad():
        next(iter(encoder.parameters())).fill_(torch.nan)
    with pytest.raises(BundleError, match="non-finite"):
        TorchRuntime(encoder)(noise(1))


def test_openvino_is_loaded_without_its_telemetry() -> None:
    code = (
        "import sys\n"
        "from millie.models.encoders import new_encoder\n"
        "from millie.inference.runtime import OpenVinoRuntime\n"
        "OpenVinoRuntime(new_encoder('resnet_small'))\n"
        "telemetry = [m for m in sys.modules if m.startswith('openvino_telemetry.')]\n"
        "print('openvino' in sys.modules, sys.modules['openvino_telemetry'], telemetry)\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "None", "[]"]


@pytest.mark.realdata
def test_the_default_encoder_has_parity_on_real_cells(data_root: Path) -> None:
    paths = sorted((data_root / "pbc_cells").rglob("*.jpg"))[::1500]
    images = np.stack([np.asarray(Image.open(p).convert("RGB").resize((224, 224))) for p in paths])
    encoder = build_encoder(ModelConfig())
    expected, found = TorchRuntime(encoder)(images), OpenVinoRuntime(encoder)(images)
    largest = np.abs(expected).max()
    assert largest > 0.5, "features are alive"
    # whole crops are not what it expects: edges of measurements fall on single pixels
    assert np.abs(found - expected).max() <= 1e-3 * largest
