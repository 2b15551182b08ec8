"""The network that sees leukocytes: its layers in OpenVINO, its weights, its maps of an image.

Owns the resolution and the input of the network. What the maps mean for single cells is decided in
``instances``, for the scale in ``scale``. The weights are what
``benchmarks/training/leukocytes.py`` writes.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from safetensors.numpy import load
from scipy.special import expit

from millie.errors import no_warnings

if TYPE_CHECKING:
    from numpy.typing import NDArray

WORK_UM_PX = 0.4
COARSE = 2  # pixels of the input along one of the coarse maps
OFFSET_UM = 5.0  # unit of the offsets
_STEP = 16  # pixels of the input along one place of the map of scales
_PADDED = 64  # sides of the input are multiples of it: each new size costs 10 ms once
_MASKS = 8  # channels of the head that are quarters of the two masks' pixels
_BLACK = 25  # brightest channel up to which a pixel is surround, not film
_LEAST_SPREAD = 0.03
_LARGEST = 6.0
_DARKEST = 5.0  # standard deviations that the darkest place may lie below the mean
_PLACE_PX = 8  # side of a place
_PART_PX = 1536  # side of a part of a large image, a multiple of 16; it takes 0.3 GB
_HALO_PX = 128  # more than the network sees around a pixel
_WEIGHTS = "leukocytes.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """What the network says about an image, without the padding.

    Attributes:
        nucleus: float32 (H, W), logit that a pixel is a leukocyte's nucleus.
        cell: float32 (H, W), logit that it is a leukocyte.
        centre: float32 (h, w), half of H and W rounded up: probability, 1 in a leukocyte's middle.
        red_cell: float32 (h, w), probability.
        platelet: float32 (h, w), probability.
        smudge: float32 (h, w), probability that a leukocyte's pixel is a smudge's.
        offset_px: float32 (2, h, w), x and y to the leukocyte's middle in pixels of this map.
        log2_scale: float32 (k, 2), log2 of um/px over 0.4 by places, and the log of its spread.
    """

    nucleus: NDArray[np.float32]
    cell: NDArray[np.float32]
    centre: NDArray[np.float32]
    red_cell: NDArray[np.float32]
    platelet: NDArray[np.float32]
    smudge: NDArray[np.float32]
    offset_px: NDArray[np.float32]
    log2_scale: NDArray[np.float32]


class Network:
    """The network with given weights, in float32 on one thread."""

    def __init__(self, weights: dict[str, NDArray[np.float32]]) -> None:
        """Build and compile it.

        Args:
            weights: of each convolution, ``name.weight`` (out, in, k, k) and ``name.bias``.
        """
        ov = import_openvino()
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # on some CPUs the default is bfloat16
            "INFERENCE_NUM_THREADS": 1,  # fields are shared among processes
            "PERFORMANCE_HINT": "LATENCY",
        }
        self._compiled = ov.Core().compile_model(_graph(ov, weights), "CPU", settings)

    def __call__(self, image: NDArray[np.uint8]) -> Maps:
        """Maps of an image, uint8 RGB (H, W, 3), at about 0.4 um/px."""
        height, width = image.shape[:2]
        padded = np.zeros((_up(height), _up(width), 3), np.float32)
        standardised(image, out=padded[:height, :width])
        masks, coarse, scale = self._in_parts(padded)
        h, w = (height + 1) // COARSE, (width + 1) // COARSE
        chances = expit(coarse[:4, :h, :w])
        unit = OFFSET_UM / (WORK_UM_PX * COARSE)
        places = scale[:, : max(1, round(height / _STEP)), : max(1, round(width / _STEP))]
        return Maps(
            nucleus=masks[0, :height, :width], cell=masks[1, :height, :width],
            centre=chances[0], red_cell=chances[1], platelet=chances[2], smudge=chances[3],
            offset_px=coarse[4:, :h, :w] * np.float32(unit),
            log2_scale=places.reshape(2, -1).T,
        )  # fmt: skip

    def _in_parts(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The three outputs; a large image is seen in parts that overlap, to bound the memory."""
        height, width = values.shape[:2]
        if height * width <= _PART_PX**2:
            return self._run(values)
        whole: list[NDArray[np.float32]] = []
        for top in range(0, height, _PART_PX):
            for left in range(0, width, _PART_PX):
                y, x = max(top - _HALO_PX, 0), max(left - _HALO_PX, 0)
                below, right = top + _PART_PX + _HALO_PX, left + _PART_PX + _HALO_PX
                part = self._run(np.ascontiguousarray(values[y:below, x:right]))
                steps = [1, COARSE, _STEP]
                if not whole:
                    sizes = [
                        (len(p), height // s, width // s) for p, s in zip(part, steps, strict=True)
                    ]
                    whole = [np.empty(size, np.float32) for size in sizes]
                for out, p, s in zip(whole, part, steps, strict=True):
                    own = out[
                        :, top // s : (top + _PART_PX) // s, left // s : (left + _PART_PX) // s
                    ]
                    v, u = (top - y) // s, (left - x) // s
                    own[:] = p[:, v : v + own.shape[1], u : u + own.shape[2]]
        return whole

    def _run(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [np.array(output[0]) for output in self._compiled(values[None]).values()]


@cache
def shipped() -> Network:
    """The network with the weights of this package."""
    data = files("millie.segmentation").joinpath(_WEIGHTS).read_bytes()
    return Network({name: value.astype(np.float32) for name, value in load(data).items()})


def standardised(
    image: NDArray[np.uint8], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Each channel with mean 0 and spread 1 over what is not black, float32 (H, W, 3).

    On a nearly empty film a few cells are all that is dark: the spread is at least a fifth of how
    far the darkest place lies from the mean. Places that are partly black are not looked at.

    Args:
        image: uint8 RGB (H, W, 3).
        out: where to write the values; None: a new array.
    """
    brightest = cv2.max(cv2.max(image[:, :, 0], image[:, :, 1]), image[:, :, 2])
    film = (brightest > _BLACK).view(np.uint8)
    mean, spread = (np.ravel(v) for v in cv2.meanStdDev(image, mask=film if film.any() else None))
    size = max(1, image.shape[1] // _PLACE_PX), max(1, image.shape[0] // _PLACE_PX)
    places = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(-1, 3)
    seen = cv2.resize(film * np.uint8(255), size, interpolation=cv2.INTER_AREA).ravel() == 255
    darkest = places[seen].min(axis=0) if seen.any() else mean
    spread = np.maximum(spread + 255 * _LEAST_SPREAD, (mean - darkest) / _DARKEST)
    values = np.empty(image.shape, np.float32) if out is None else out
    np.subtract(image, mean.astype(np.float32), out=values)
    values *= (1 / spread).astype(np.float32)
    return np.clip(values, -_LARGEST, _LARGEST, out=values)


def _up(side: int) -> int:
    return -(-side // _PADDED) * _PADDED


def _graph(ov: Any, weights: dict[str, NDArray[np.float32]]) -> Any:
    """The layers: four levels down, three up, joined by sums."""
    ops = importlib.import_module("openvino.opset13")

    def convolution(x: Any, name: str, *, stride: int = 1, relu: bool = True) -> Any:
        kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        pad = kernel.shape[2] // 2
        y = ops.convolution(x, ops.constant(kernel), [stride] * 2, [pad] * 2, [pad] * 2, [1, 1])
        y = ops.add(y, ops.constant(bias.reshape(1, -1, 1, 1)))
        return ops.relu(y) if relu else y

    def twice(x: Any) -> Any:
        scales = ops.constant(np.array([2, 2], np.float32))
        return ops.interpolate(
            x, scales, "nearest", "scales", coordinate_transformation_mode="asymmetric",
            nearest_mode="floor", axes=ops.constant(np.array([2, 3], np.int64)),
        )  # fmt: skip

    image = ops.parameter([1, -1, -1, 3], np.float32)
    x = ops.transpose(image, ops.constant(np.array([0, 3, 1, 2], np.int64)))
    x = ops.space_to_depth(x, "depth_first", 2)
    levels: list[Any] = []
    while f"down.{len(levels)}.0.weight" in weights:
        level = len(levels)
        x = convolution(x, f"down.{level}.0", stride=2 if level else 1)
        x = convolution(x, f"down.{level}.1")
        levels.append(x)
    x = convolution(x, "deep")
    scale = convolution(x, "scale", relu=False)
    for level in range(len(levels) - 2, -1, -1):
        x = ops.add(twice(convolution(x, f"across.{level}", relu=False)), levels[level])
        x = convolution(x, f"up.{level}")
    head = convolution(x, "head", relu=False)
    axis, count = ops.constant(np.int64(1)), weights["head.bias"].size
    masks, coarse = ops.variadic_split(
        head, axis, ops.constant(np.array([_MASKS, count - _MASKS], np.int64))
    ).outputs()
    masks = ops.depth_to_space(masks, "depth_first", 2)
    outputs = [masks.output(0), coarse, scale.output(0)]
    return ov.Model(outputs, [image])


def import_openvino() -> Any:
    """The module, imported without warnings and without its report to its maker."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # absent: silent
    with no_warnings():
        return importlib.import_module("openvino")
