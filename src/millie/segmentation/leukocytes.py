"""Find leukocytes: the one entrance for every method, and what single-cell crops need.

Owns the table of methods, the choice of the scale and the conversion between the working
resolution and full-resolution pixels. How nuclei and cells are delineated lies in its siblings.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from millie.errors import ConfigError
from millie.segmentation.cells import cells_of
from millie.segmentation.nuclei import find_nuclei
from millie.segmentation.paper import segment_paper, segment_released_code
from millie.segmentation.scale import (
    Expected,
    SampleStatistics,
    enough,
    expected_diameter,
    mode_diameter,
    pooled_diameter,
    red_cell_diameters,
    too_coarse,
)
from millie.segmentation.stain import stain_map
from millie.types import Detection, PixelSize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from millie.config import SegmentationConfig
    from millie.segmentation.stain import StainMap
    from millie.types import CellRegion

_AHEAD_IMAGES = 24
_AHEAD_PIXELS = 40_000_000
_SCALE_SIDE_PX = 900  # longest side at which red cells are measured
_FINE_SIDE_PX = 600  # side of the part seen at finer levels
_SURE = 3.0  # full circles that agree: no finer level is needed
_SMALLEST_SIDE_PX = 45
_NUCLEUS_SIDE_PX = 260  # longest side at which a nucleus is measured, coarse enough to be one blob
_LARGE_SIDE_UM = 60.0
_FULL = 0.93  # share of stained pixels beyond which a field shows tissue or a far too thick film
_MOST_ENLARGED_PX = 100_000_000  # of an enlarged field; each takes 50 bytes of memory
_ASSUMED_SIDE_UM = 36.0  # of an image that shows neither red cells nor a nucleus


def segment(
    image: NDArray[np.uint8],
    pixel_size: PixelSize | None,
    config: SegmentationConfig,
    sample: SampleStatistics | None = None,
) -> Detection:
    """Find the leukocytes of one image.

    Args:
        image: uint8 RGB (H, W, 3).
        pixel_size: from manifest or metadata; None: ``config.um_px``, else the image's red
            cells, else the sample's.
        config: method and limits.
        sample: from :func:`sample_statistics` over the sample's images.

    Returns:
        Cells ordered by (top, left) of their boxes. An image that cannot be judged has none and
        ``diagnostics["refused"]`` says why.

    Raises:
        ConfigError: the image is not uint8 RGB.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ConfigError(
            f"image of shape {image.shape} and type {image.dtype}: expected uint8 RGB (H, W, 3); "
            "read it with millie.readers.images.read_image"
        )
    given = pixel_size or (PixelSize(config.um_px) if config.um_px else None)
    return SEGMENTERS[config.method](image, given, config, sample)


def sample_statistics(
    fields: Iterable[tuple[NDArray[np.uint8], PixelSize | None]], config: SegmentationConfig
) -> SampleStatistics:
    """Learn from several images of one sample what a single one may be too small to tell.

    Red cells are pooled over images of equal size. Where the images' own scales disagree (two
    magnifications in one sample) nothing is pooled and each image is judged by itself.

    Args:
        fields: images with their pixel size or None; those with a known one teach nothing.
        config: the red cells' diameter is used.
    """
    seen: dict[str, list[tuple[NDArray[np.float64], Expected]]] = {}
    n_images = 0
    for image, pixel_size in fields:
        n_images += 1
        if pixel_size is None and config.um_px is None and config.method == "default":
            seen.setdefault(_size_name(image), []).append(_diameters(image))
    um_px: dict[str, float] = {}
    weights = 0.0
    for name, parts in seen.items():
        diameter, weight = pooled_diameter([part[0] for part in parts], [part[1] for part in parts])
        if enough(weight):
            um_px[name] = config.red_cell_diameter_um / diameter
            weights += weight
    return SampleStatistics(um_px, weights, n_images)


def detect(
    images: Iterable[tuple[NDArray[np.uint8], PixelSize | None]],
    config: SegmentationConfig,
    sample: SampleStatistics | None = None,
) -> Iterator[Detection]:
    """Segment the images of one sample one after another, each with the scale of all.

    Args:
        images: image and pixel size or None; the first ones (at most 24 and 40 MP) are read ahead
            to learn the sample's scale, the rest stream.
        config: as for :func:`segment`.
        sample: statistics learnt before; then nothing is read ahead.
    """
    rest = iter(images)
    ahead: list[tuple[NDArray[np.uint8], PixelSize | None]] = []
    if sample is None:
        pixels = 0
        for item in rest:
            ahead.append(item)
            pixels += item[0].shape[0] * item[0].shape[1]
            if len(ahead) >= _AHEAD_IMAGES or pixels >= _AHEAD_PIXELS:
                break
        sample = sample_statistics(ahead, config)
    for image, pixel_size in chain(ahead, rest):
        yield segment(image, pixel_size, config, sample)


def central_region(detection: Detection, image_shape: tuple[int, ...]) -> CellRegion | None:
    """The cell that a single-cell crop was made for: the one nearest its centre.

    Returns:
        None if no cell was found, or none within a quarter of the shorter side of the centre.
    """
    height, width = image_shape[:2]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    best, best_distance = None, min(height, width) / 4
    for region in detection.regions:
        cell = region.cell
        distance = float(np.hypot(*(np.array([cell.x_px, cell.y_px]) - centre)))
        inside = (
            cell.left_px <= centre[0] < cell.left_px + cell.width_px
            and cell.top_px <= centre[1] < cell.top_px + cell.height_px
        )
        distance *= 0.5 if inside else 1.0
        if distance < best_distance:
            best, best_distance = region, distance
    return best


def _segment_default(
    image: NDArray[np.uint8],
    given: PixelSize | None,
    config: SegmentationConfig,
    sample: SampleStatistics | None,
) -> Detection:
    um_px, source = _scale(image, given, config, sample)
    height, width = image.shape[:2]
    if refusal := _enlarged_too_far(height, width, um_px, source, config.working_um_px):
        return Detection((), None, (255, 255, 255), {"scale_source": source, "refused": refusal})
    work = _resized(image, um_px / config.working_um_px)
    stain = stain_map(work)
    diagnostics: dict[str, Any] = {
        "scale_source": source,
        "um_px": round(um_px, 5),
        "background_rgb": list(stain.background_rgb),
        "nucleus_threshold": round(stain.threshold, 4),
        "red_cell_density": round(stain.red_cell_density, 4),
        "red_cell_score": round(stain.red_cell_score, 4),
        "foreground": round(stain.foreground, 4),
    }
    known = PixelSize(um_px) if source not in ("leukocyte", "assumed") else None
    refusal = stain.refusal or _crowding(stain, um_px * max(height, width))
    if refusal:
        diagnostics["refused"] = refusal
        return Detection((), known, stain.background_rgb, diagnostics)
    nuclei = find_nuclei(stain, um_px * width / work.shape[1])
    regions = cells_of(stain, nuclei, (height, width), um_px, config, guessed=known is None)
    return Detection(tuple(regions), known, stain.background_rgb, diagnostics)


def _enlarged_too_far(
    height_px: int, width_px: int, um_px: float, source: str, working_um_px: float
) -> str:
    """Reason to refuse a field that enlarging to the working resolution would blow up."""
    factor = um_px / working_um_px
    enlarged = height_px * width_px * factor**2
    if factor <= 1 or enlarged <= _MOST_ENLARGED_PX:
        return ""
    return (
        f"{width_px} x {height_px} px at {um_px:.3g} um/px ({source}) are "
        f"{width_px * um_px / 1000:.1f} x {height_px * um_px / 1000:.1f} mm, which would be "
        f"enlarged to {enlarged / 1e6:.0f} MP; check the um/px, and if it is right split the image "
        f"into fields or set segmentation.working_um_px={um_px:.3g}"
    )


def _resized(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """The image at another resolution: whole steps averaged, the rest interpolated.

    Averaging over areas by a fraction costs ten times as much as by a whole number.
    """
    height, width = image.shape[:2]
    size = max(8, round(width * factor)), max(8, round(height * factor))
    steps = int(min(width / size[0], height / size[1]))
    if steps >= 2:
        whole = max(8, width // steps), max(8, height // steps)
        image = np.asarray(cv2.resize(image, whole, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def _crowding(stain: StainMap, side_um: float) -> str:
    """Reason to refuse a field without room between its cells; a small crop may be full."""
    if side_um > _LARGE_SIDE_UM and stain.foreground > _FULL:
        return "not a blood film: no room between cells, as in a tissue section"
    return ""


def _scale(
    image: NDArray[np.uint8],
    given: PixelSize | None,
    config: SegmentationConfig,
    sample: SampleStatistics | None,
) -> tuple[float, str]:
    """um/px and where it is from: given, sample, red cells or assumed."""
    if given:
        return given.um_px, "given"
    name = _size_name(image)
    if sample and name in sample.um_px:
        return sample.um_px[name], "sample"
    diameter, weight = mode_diameter(*_diameters(image))
    if enough(weight):
        return config.red_cell_diameter_um / diameter, "red cells"
    if diameter > 0:
        return config.red_cell_diameter_um / diameter, "leukocyte"
    return _ASSUMED_SIDE_UM / max(image.shape[:2]), "assumed"


def _diameters(image: NDArray[np.uint8]) -> tuple[NDArray[np.float64], Expected]:
    """Red-cell diameters with weights, over a pyramid of sizes, and what a leukocyte says, px."""
    longest = max(image.shape[:2])
    factor = min(1.0, _SCALE_SIDE_PX / longest)
    small = _resized(image, factor) if factor < 1 else image
    first = factor
    parts: list[NDArray[np.float64]] = []
    expected: Expected | None = None
    while True:
        nucleus = expected is None and max(small.shape) <= _NUCLEUS_SIDE_PX
        red_cells = not parts or not too_coarse(np.concatenate(parts), factor)
        if not red_cells and expected is not None:
            break
        if red_cells or nucleus:
            stain = stain_map(small, judged=False)
        if red_cells:
            found = red_cell_diameters(stain)
            found[:, 0] /= factor
            parts.append(found)
        if nucleus:
            own = expected_diameter(stain)
            expected = Expected(own.red_cell_px / factor, own.lone)
        factor /= 2
        if max(image.shape[:2]) * factor < _SMALLEST_SIDE_PX or min(small.shape[:2]) < 2:
            break
        half = cv2.resize(small, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        small = np.asarray(half, dtype=np.uint8)
    if mode_diameter(np.concatenate(parts))[1] < _SURE:
        parts += _finer_diameters(image, first)
    return np.concatenate(parts), expected or Expected(0.0)


def _finer_diameters(image: NDArray[np.uint8], factor: float) -> list[NDArray[np.float64]]:
    """Red-cell diameters in the middle of a large image, at levels finer than ``factor``.

    In a large field at low magnification red cells are too small to measure when the whole field
    is shrunk.
    """
    height, width = image.shape[:2]
    parts = []
    while (factor := 2 * factor) < 2:
        factor = min(factor, 1.0)
        h, w = (min(side, round(_FINE_SIDE_PX / factor)) for side in (height, width))
        top, left = (height - h) // 2, (width - w) // 2
        part = _resized(image[top : top + h, left : left + w], factor)
        found = red_cell_diameters(stain_map(part, judged=False))
        found[:, 0] /= factor
        parts.append(found)
        if factor == 1:
            break
    return parts


def _size_name(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


SEGMENTERS: dict[
    str,
    Callable[
        [NDArray[np.uint8], PixelSize | None, SegmentationConfig, SampleStatistics | None],
        Detection,
    ],
] = {
    "default": _segment_default,
    "paper": lambda image, given, config, _: segment_paper(image, given, config),
    "released-code": lambda image, given, config, _: segment_released_code(image, given, config),
}
