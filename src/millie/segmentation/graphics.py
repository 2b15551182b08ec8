"""What was drawn into an image after it was taken: text, scale bars, arrows.

Owns how graphics are told from a film. A microscope's image is no sharper than its optics: from a
nucleus to what lies beside it, colour changes over several pixels. Graphics have one colour, thin
strokes, and edges one pixel wide, whether smoothed or compressed. What touches the edge of the
image (a surround, a footer bar) is none of this.

The limits lie between 17,800 parts of even colour in 150 images of 14 sources and the strokes of
text of 13 colours, seven fonts and four sizes burned into others, in PNG and JPEG.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Mask = NDArray[np.uint8]
    Window = tuple[slice, slice]

_SHARP = 80  # difference of a channel within 3 x 3 px that makes a sharp edge
_LEAST_PX = 80  # of sharp edges, and of all strokes of one colour
_LEAST_SHARE = 1 / 4000  # of sharp edges in a large image, where letters are large: saves time
_BESIDE = 0.3  # share of a colour's pixels that lie within 3 px of sharp edges
_COLOURS = 6  # looked at, the most frequent ones
_SAME = 48  # difference of a channel within which compression leaves a stroke's colour
_STEP = 90  # mean difference of the first pixels outside; in films 56, in one part of 100 113
_OTHER, _MOSTLY = 70, 0.8  # difference of the second pixels outside, in so many of them
_WITH_OTHERS = 0.6  # of both, where others of the colour have passed, or no stain gives it
_YELLOW = 135  # red and green over blue: 133 at most in 540 images; JPEG softens its edges
_THIN = 0.42  # half the stroke's width over the radius of a disc of its area
_FILLED, _LONG = 0.88, 2.0  # share of its box that a bar fills, and its length over its width
_PALEST = 110  # darkest channel: gaps between cells are paler, and pale text is no cell
_WIDEST_PX = 12  # half a stroke's width
_LEAST_AREA_PX, _LEAST_SIDE_PX = 12, 6  # of one stroke
_HALO_PX = 3  # around strokes, what smoothing and compression have changed
_EVEN, _EVENLY = 10, 0.9  # difference of a channel that a box keeps, in so many of its pixels
_BOX_SHARE = 0.15  # largest share of an image; beyond, it is the background itself
_SQUARE = np.ones((3, 3), np.uint8)
_DARKEST = 16 * np.indices((16, 16, 16)).min(axis=0)  # darkest channel of each cube
_NEIGHBOURS = np.tri(16, k=1, dtype=np.float32) * np.tri(16, k=1, dtype=np.float32).T
"""Adds to each of a row of 16 cubes the two beside it."""


def without_graphics(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with what was drawn into it painted over from around it; itself if there is none.

    Args:
        image: uint8 RGB (H, W, 3), at full resolution.
    """
    drawn = find_graphics(image)
    if drawn is None:
        return image
    return np.asarray(cv2.inpaint(image, drawn.view(np.uint8), 3, cv2.INPAINT_TELEA), np.uint8)


def find_graphics(image: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Where something was drawn, bool (H, W), with a rim of 3 px; None: nowhere.

    Args:
        image: uint8 RGB (H, W, 3), at full resolution.
    """
    steps = cv2.morphologyEx(image, cv2.MORPH_GRADIENT, _SQUARE)
    soft = cv2.inRange(steps, (0, 0, 0), (_SHARP,) * 3)
    if soft.size - cv2.countNonZero(soft) < max(_LEAST_PX, _LEAST_SHARE * soft.size):
        return None
    near = _grown(cv2.bitwise_not(soft), 3)
    drawn = np.zeros(image.shape[:2], np.uint8)
    for colour in _colours(image, near):
        _draw_strokes(drawn, image, colour, near)
    if not drawn.any():
        return None
    drawn = _grown(drawn, _HALO_PX)
    _draw_boxes(drawn, image)
    return drawn > 0


def _grown(mask: NDArray[Any], px: int) -> NDArray[Any]:
    return np.asarray(cv2.dilate(mask, np.ones((2 * px + 1, 2 * px + 1), np.uint8)))


def _colours(image: NDArray[np.uint8], near: Mask) -> Iterator[NDArray[np.int16]]:
    """Colours that occur mostly beside sharp edges, the most frequent first."""
    beside, everywhere = _frequencies(image, near), _frequencies(image, None)
    wanted = (beside > _BESIDE * everywhere) & (beside >= _LEAST_PX)
    wanted &= _DARKEST <= _PALEST
    left = np.where(wanted, beside, 0)
    for _ in range(_COLOURS):
        place = np.unravel_index(int(left.argmax()), left.shape)
        if left[place] == 0:
            return
        low, high = ([float(16 * p + by) for p in place] for by in (-16, 31))
        like = cv2.bitwise_and(cv2.inRange(image, tuple(low), tuple(high)), near)
        yield np.median(image[like > 0], axis=0).astype(np.int16)
        left[tuple(slice(max(int(p) - 3, 0), int(p) + 4) for p in place)] = 0


def _frequencies(image: NDArray[np.uint8], mask: Mask | None) -> NDArray[np.float32]:
    """Pixels by colour in cubes of 48 levels a side, (16, 16, 16) at steps of 16."""
    counts = np.asarray(cv2.calcHist([image], [0, 1, 2], mask, [16] * 3, [0, 256] * 3), np.float32)
    return np.asarray(np.tensordot(_NEIGHBOURS, _NEIGHBOURS @ counts @ _NEIGHBOURS, 1))


def _draw_strokes(
    drawn: Mask,
    image: NDArray[np.uint8],
    colour: NDArray[np.int16],
    near: Mask,
) -> None:
    """Mark the strokes of one colour, if there are enough of them."""
    low, high = (tuple(np.clip(colour + by, 0, 255).tolist()) for by in (-_SAME, _SAME))
    same = np.asarray(cv2.inRange(image, low, high), np.uint8)
    n, labels, boxes = _parts(same)
    beside = np.bincount(labels[near > 0], minlength=n) > _BESIDE * boxes[:, cv2.CC_STAT_AREA]
    fits = np.flatnonzero(beside & _may_be_stroke(boxes, near.shape))
    parts = [_part(labels, int(k), boxes[k]) for k in fits]
    red, green, blue = (int(v) for v in colour)
    needed = _WITH_OTHERS if min(red, green) - blue > _YELLOW else 1.0
    sure = [p for p in parts if _is_stroke(*p, same, image, colour, needed)]
    if sum(np.count_nonzero(part) for _, part in sure) < _LEAST_PX:
        return
    for at, part in parts:
        if _in_reach(at, sure) and _is_stroke(at, part, same, image, colour, _WITH_OTHERS):
            drawn[at] |= part


def _parts(mask: Mask) -> tuple[int, NDArray[np.int32], NDArray[np.int32]]:
    """Number of connected parts, the rest included; labels (H, W); x, y, w, h, area of each."""
    n, labels, boxes, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    return n, np.asarray(labels, np.int32), np.asarray(boxes, np.int32)


def _in_reach(at: Window, others: list[tuple[Window, Mask]]) -> bool:
    """Whether a part lies no farther from one of the others than that is long."""
    return any(
        all(
            here.start - there.stop <= max(part.shape)
            and there.start - here.stop <= max(part.shape)
            for here, there in zip(at, other, strict=True)
        )
        for other, part in others
    )


def _part(labels: NDArray[np.int32], k: int, box: NDArray[np.int32]) -> tuple[Window, Mask]:
    """A window with 2 px around a part, and the part in it, 0 or 1."""
    x, y, w, h = (int(v) for v in box[:4])
    window = slice(max(y - 2, 0), y + h + 2), slice(max(x - 2, 0), x + w + 2)
    return window, (labels[window] == k).view(np.uint8)


def _may_be_stroke(boxes: NDArray[np.int32], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """By size and place alone; the first part is all that has another colour."""
    x, y, w, h, area = boxes.T
    fits = (area >= _LEAST_AREA_PX) & (np.maximum(w, h) >= _LEAST_SIDE_PX)
    fits &= area <= 2 * _WIDEST_PX * (w + h)
    fits &= (x > 0) & (y > 0) & (x + w < shape[1]) & (y + h < shape[0])
    fits[0] = False
    return np.asarray(fits)


def _is_stroke(
    at: Window,
    part: Mask,
    same: Mask,
    image: NDArray[np.uint8],
    colour: NDArray[np.int16],
    sharpness: float,
) -> bool:
    """Whether a part of even colour is thin or a bar, and its edges so sharp all around."""
    window, like = image[at], same[at]
    first = (_grown(part, 1) > 0) & (like == 0)
    second = (_grown(part, 2) > 0) & (_grown(like, 1) == 0)
    if not first.any() or np.abs(window[first] - colour).max(axis=1).mean() < sharpness * _STEP:
        return False
    if (
        second.any()
        and (np.abs(window[second] - colour).max(axis=1) > _OTHER).mean() < sharpness * _MOSTLY
    ):
        return False
    closed = np.pad(cv2.morphologyEx(part, cv2.MORPH_CLOSE, _SQUARE), 1)
    half_width = float(cv2.distanceTransform(closed, cv2.DIST_L2, 3).max())
    area = np.count_nonzero(part)
    _, _, *sides = cv2.boundingRect(part)
    bar = area >= _FILLED * sides[0] * sides[1] and max(sides) >= _LONG * min(sides)
    return half_width <= _WIDEST_PX and bool(bar or half_width <= _THIN * (area / np.pi) ** 0.5)


def _draw_boxes(drawn: Mask, image: NDArray[np.uint8]) -> None:
    """Mark the rectangles of one colour in which strokes stand; white, they pass for background."""
    n, labels, boxes = _parts(drawn)
    for k in range(1, n):
        window, part = _part(labels, k, boxes[k])
        ring = (_grown(part, 2) > 0) & (drawn[window] == 0)
        if not ring.any():
            continue
        colours = image[window][ring].astype(np.int16)
        apart = np.abs(colours - np.median(colours, axis=0)).max(axis=1)
        if (apart <= _EVEN).mean() < _EVENLY:
            continue
        row, column = np.argwhere(ring)[int(apart.argmin())]
        place = window[1].start + int(column), window[0].start + int(row)
        if (box := _box_around(image, place)) is not None:
            drawn[box] = 1


def _box_around(image: NDArray[np.uint8], place: tuple[int, int]) -> Window | None:
    """The rectangle of even colour around (x, y), with its halo, if it is one."""
    height, width = image.shape[:2]
    filled = np.zeros((height + 2, width + 2), np.uint8)
    how = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | (1 << 8)
    even = (_EVEN,) * 3
    _, _, _, (x, y, w, h) = cv2.floodFill(image.copy(), filled, place, (0, 0, 0), even, even, how)
    if w * h > _BOX_SHARE * height * width:
        return None
    part = filled[1 + y : 1 + y + h, 1 + x : 1 + x + w].copy()
    outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(part, outlines, -1, 1, cv2.FILLED)
    if np.count_nonzero(part) < _FILLED * w * h:
        return None
    halo = _HALO_PX
    return slice(max(y - halo, 0), y + h + halo), slice(max(x - halo, 0), x + w + halo)
