"""The fingerprint of a cut cell, by which copies of it are known again.

A copy may be encoded as JPEG, resized, turned by any angle or mirrored. Owns the fingerprint and
the comparison of two; which cells are compared is the business of :mod:`millie.bags.copies`.

Two looks decide. Colours in rings around the cell's middle, which neither turning nor mirroring
changes, tell which pairs are worth the second. There the grey picture is unrolled around the
middle, so that turning is a shift, and the two are correlated at every angle. The pattern of three
and more periods around the middle must agree by itself: the coarse shape of a round or bean-shaped
nucleus is shared by thousands of cells. A picture without texture is nobody's copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE_PX = 48
"""Side of the grey picture."""
RINGS = 10
"""Rings of the cell whose mean colours are kept."""

RADIUS = 5.0 * (RINGS * 3) ** 0.5
"""Distance of two rows of ring colours up to which cells are compared: 5 levels a colour."""
ALIKE = 0.92
"""Correlation of the fine pattern from which two cells are one picture."""
ALIKE_WHOLE = 0.90
"""Correlation of the whole unrolled picture that is needed besides."""

_POLAR = cv2.WARP_POLAR_LINEAR | cv2.INTER_LINEAR
_RADIUS_PX = 20.0  # of the cell in the grey picture
_BLUR_PX = 1.0  # what encoding, resizing and turning change is finer than that
_ANGLES, _RADII = 64, 20
_RIND = slice(2, 17)  # radii compared: the middle has no angles, the outline wobbles
_COARSE = 2  # periods around the middle up to which a pattern is shape, not texture
_NOISE = 0.5  # grey levels: of less texture than that nothing can be said
_WORTH = 0.6  # correlation at the same middle from which neighbouring middles are tried
_SHIFTS = (-0.05, 0.0, 0.05)  # of the middle, in radii: outlines of copies differ a little
_SCALES = (0.96, 1.0, 1.04)


@dataclass(frozen=True, slots=True, eq=False)
class Fingerprint:
    """What is kept of a cell.

    Attributes:
        rings: uint8 (RINGS * 3,), mean colour of each ring from the middle outwards.
        picture: uint8 (SIDE_PX, SIDE_PX), the cell in grey, moved to the middle and scaled to one
            size.
    """

    rings: NDArray[np.uint8]
    picture: NDArray[np.uint8]


def fingerprint(image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Fingerprint:
    """The fingerprint of a crop.

    Args:
        image: uint8 RGB (S, S, 3).
        mask: uint8 (S, S), above 0 on the cell; without any the whole crop is taken.
    """
    size = image.shape[0]
    moments = cv2.moments((mask > 0).view(np.uint8), binaryImage=True)
    if area := moments["m00"]:
        x, y, radius = moments["m10"] / area, moments["m01"] / area, float(np.sqrt(area / np.pi))
    else:
        x = y = (size - 1) / 2
        radius = size / 2
    scale = max(radius, 1.0) / _RADIUS_PX
    if scale > 1:  # averaged first, so that fine patterns do not turn into coarse ones
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.5 * scale), dtype=np.uint8)
    middle = (SIDE_PX - 1) / 2
    to_crop = np.array([[scale, 0, x - scale * middle], [0, scale, y - scale * middle]])
    small = cv2.warpAffine(
        image, to_crop, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    rings = cv2.warpPolar(small, (RINGS, _ANGLES), (middle, middle), _RADIUS_PX, _POLAR)
    colours = np.rint(rings.mean(axis=0)).astype(np.uint8).ravel()
    return Fingerprint(colours, np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8))


def same_picture(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> bool:
    """Whether two grey pictures (SIDE_PX, SIDE_PX) show one cell, turned or mirrored or not."""
    a, b = _smooth(first), _smooth(second)
    one = _spectra(_unrolled(a, 0, 0, 1)[None])
    fine, whole = _agreement(one, _spectra(_unrolled(b, 0, 0, 1)[None]))
    if fine[0] < _WORTH:
        return False
    if fine[0] >= ALIKE and whole[0] >= ALIKE_WHOLE:
        return True
    tried = [_unrolled(b, *place) for place in product(_SHIFTS, _SHIFTS, _SCALES)]
    fine, whole = _agreement(one, _spectra(np.stack(tried)))
    best = int(fine.argmax())
    return bool(fine[best] >= ALIKE and whole[best] >= ALIKE_WHOLE)


def _smooth(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    smooth = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), _BLUR_PX)
    return np.asarray(smooth, dtype=np.float32)


def _unrolled(
    picture: NDArray[np.float32], right: float, down: float, scale: float
) -> NDArray[np.float32]:
    """Rows are angles, columns radii; the middle is moved by parts of the radius."""
    middle = (SIDE_PX - 1) / 2
    centre = middle + right * _RADIUS_PX, middle + down * _RADIUS_PX
    rolled = cv2.warpPolar(picture, (_RADII, _ANGLES), centre, _RADIUS_PX * scale, _POLAR)
    return np.asarray(rolled[:, _RIND], dtype=np.float32)


def _spectra(unrolled: NDArray[np.float32]) -> NDArray[np.complex64]:
    """Periods around the middle of (n, angles, radii), each radius by its circumference."""
    weights = np.sqrt(np.arange(_RADII)[_RIND] + 0.5)
    weights /= np.linalg.norm(weights)
    spectra = np.fft.rfft(unrolled * weights, axis=1) / _ANGLES
    spectra[:, 0] = 0
    return np.asarray(spectra, dtype=np.complex64)


def _agreement(
    one: NDArray[np.complex64], others: NDArray[np.complex64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Highest correlation over angles and mirroring: of the fine pattern, and of the whole."""
    plain, mirrored = (others.conj() * one).sum(axis=2), (others * one).sum(axis=2)
    n = len(others)
    fine, whole = np.zeros(n), np.zeros(n)
    for products in (plain, mirrored):
        for first, found in ((1, whole), (_COARSE + 1, fine)):
            part = products.copy()
            part[:, :first] = 0
            norms = np.sqrt(_power(one, first) * _power(others, first))
            peaks = np.fft.irfft(part, axis=1).max(axis=1) * _ANGLES
            np.maximum(found, peaks / norms, out=found)
    return fine, whole


def _power(spectra: NDArray[np.complex64], first: int) -> NDArray[np.float64]:
    """Squared grey levels of the periods from ``first`` on, noise added."""
    squares = (np.abs(spectra[:, first:].astype(np.complex128)) ** 2).sum(axis=2)
    total: NDArray[np.float64] = 2 * squares.sum(axis=1) - squares[:, -1] + _NOISE**2
    return total
