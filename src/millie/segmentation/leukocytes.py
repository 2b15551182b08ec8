"""Find leukocytes: the one entrance for every method, and what single-cell crops need.

Owns the table of methods, the choice of the scale and the step to the working resolution. How
leukocytes are seen and delineated lies in its siblings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from millie.errors import ConfigError
from millie.segmentation.film import explained, film_of, near_stain, unlike_blood
from millie.segmentation.graphics import without_graphics
from millie.segmentation.instances import cells_of
from millie.segmentation.network import WORK_UM_PX, shipped
from millie.segmentation.paper import segment_paper, segment_released_code
from millie.segmentation.scale import (
    LEAST_RED_CELLS,
    Reading,
    SampleStatistics,
    over_stated,
    pooled,
    read_scale,
)
from millie.types import Detection, PixelSize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from millie.config import SegmentationConfig
    from millie.segmentation.network import Network
    from millie.types import CellRegion

_AHEAD_IMAGES = 24
_AHEAD_PIXELS = 40_000_000
_CHECKED_IMAGES = 8  # whose stated scale is compared with their red cells
_SMALLEST_SIDE_PX = 10  # of an image that may show a cell
_MOST_ENLARGED_PX = 60_000_000  # of an enlarged field
_ASSUMED_SIDE_UM = 36.0  # of an image that shows neither red cells nor a leukocyte


def segment(
    image: NDArray[np.uint8],
    pixel_size: PixelSize | None,
    config: SegmentationConfig,
    sample: SampleStatistics | None = None,
) -> Detection:
    """Find the leukocytes of one image.

    Args:
        image: uint8 RGB (H, W, 3).
        pixel_size: from manifest or metadata; None: ``config.um_px``, else the sample's,
            else the image's red cells.
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

    Scales are pooled over images of equal size. Where the images' own scales disagree (two
    magnifications in one sample) nothing is pooled and each image is judged by itself.

    Args:
        fields: images with their pixel size or None; where it is known, the first few tell whether
            red cells contradict it.
        config: the red cells' diameter is used.
    """
    seen: dict[str, list[Reading]] = {}
    checked: list[Reading] = []
    n_images = 0
    for image, pixel_size in fields:
        n_images += 1
        stated = pixel_size.um_px if pixel_size else config.um_px
        if config.method != "default" or (stated and len(checked) >= _CHECKED_IMAGES):
            continue
        reading = read_scale(
            without_graphics(image), shipped(), _resized, config.red_cell_diameter_um
        )
        if stated:
            checked.append(replace(reading, um_px=reading.um_px / stated))
        else:
            seen.setdefault(_size_name(image), []).append(reading)
    um_px: dict[str, float] = {}
    weights = 0.0
    for name, parts in seen.items():
        scale, red_cells = pooled(parts)
        if red_cells >= LEAST_RED_CELLS:  # fewer give a guess, which each image makes by itself
            um_px[name] = scale
            weights += red_cells
    return SampleStatistics(um_px, weights, n_images, over_stated(checked))


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


def segment_with(
    network: Network,
    image: NDArray[np.uint8],
    given: PixelSize | None,
    config: SegmentationConfig,
    sample: SampleStatistics | None = None,
) -> Detection:
    """The default method with another network than the one shipped; else as :func:`segment`."""
    height, width = image.shape[:2]
    if min(height, width) < _SMALLEST_SIDE_PX:
        return _refused("no cell fits into the image", (255, 255, 255), {"scale_source": "assumed"})
    image = without_graphics(image)
    um_px, source = _scale(network, image, given, config, sample)
    known = PixelSize(um_px) if source not in ("leukocyte", "assumed") else None
    diagnostics: dict[str, Any] = {"scale_source": source, "um_px": round(um_px, 5)}
    if source == "given" and sample and sample.over_stated:
        diagnostics["over_stated"] = round(sample.over_stated, 3)
    if refusal := _enlarged_too_far(height, width, um_px, source):
        return _refused(refusal, (255, 255, 255), diagnostics, known)
    work = _resized(image, um_px / WORK_UM_PX)
    film = film_of(work)
    diagnostics["background_rgb"] = list(film.background_rgb)
    diagnostics["foreground"] = round(film.foreground, 4)
    if film.refusal:
        return _refused(film.refusal, film.background_rgb, diagnostics, known)
    maps = network(work)
    diagnostics["explained"] = round(explained(film, maps), 4)
    if refusal := unlike_blood(film, maps, um_px * max(height, width)):
        return _refused(refusal, film.background_rgb, diagnostics, known)
    middles = np.where(near_stain(film, maps.centre.shape), maps.centre, 0)
    regions = cells_of(replace(maps, centre=middles), (height, width), um_px, config)
    return Detection(tuple(regions), known, film.background_rgb, diagnostics)


def _refused(
    reason: str,
    background_rgb: tuple[int, int, int],
    diagnostics: dict[str, Any],
    pixel_size: PixelSize | None = None,
) -> Detection:
    """No cells; a scale that is known is kept: a crop is cut by it all the same."""
    return Detection((), pixel_size, background_rgb, {**diagnostics, "refused": reason})


def _enlarged_too_far(height_px: int, width_px: int, um_px: float, source: str) -> str:
    """Reason to refuse a field that enlarging to the working resolution would blow up."""
    factor = um_px / WORK_UM_PX
    enlarged = height_px * width_px * factor**2
    if factor <= 1 or enlarged <= _MOST_ENLARGED_PX:
        return ""
    return (
        f"{width_px} x {height_px} px at {um_px:.3g} um/px ({source}) are "
        f"{width_px * um_px / 1000:.1f} x {height_px * um_px / 1000:.1f} mm, which would be "
        f"enlarged to {enlarged / 1e6:.0f} MP; check the um/px, and if it is right split the image "
        "into fields"
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


def _scale(
    network: Network,
    image: NDArray[np.uint8],
    given: PixelSize | None,
    config: SegmentationConfig,
    sample: SampleStatistics | None,
) -> tuple[float, str]:
    """um/px and where it is from: given, sample, red cells, leukocyte or assumed."""
    if given:
        return given.um_px, "given"
    name = _size_name(image)
    if sample and name in sample.um_px:
        return sample.um_px[name], "sample"
    reading = read_scale(image, network, _resized, config.red_cell_diameter_um)
    if reading.sure:
        return reading.um_px, "red cells"
    if reading.leukocyte or reading.red_cells > 0:
        return reading.um_px, "leukocyte"
    return _ASSUMED_SIDE_UM / max(image.shape[:2]), "assumed"


def _size_name(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


SEGMENTERS: dict[
    str,
    Callable[
        [NDArray[np.uint8], PixelSize | None, SegmentationConfig, SampleStatistics | None],
        Detection,
    ],
] = {
    "default": lambda *arguments: segment_with(shipped(), *arguments),
    "paper": lambda image, given, config, _: segment_paper(image, given, config),
    "released-code": lambda image, given, config, _: segment_released_code(image, given, config),
}
