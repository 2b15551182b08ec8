"""From bags to tensors: drawing cells, batches in a stream, padding with a mask.

This module owns the step from uint8 (N, S, S, 3) arrays to float32 (N, 3, S, S) tensors; it is the
only one of the store that imports torch. Augmentation and normalisation belong to the models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from millie.bags.store import BagReader
from millie.errors import ConfigError

Background = Literal["keep", "mask", "isolate", "only"]

Recolour = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
"""A change of colours of images uint8 (N, H, W, 3), the same for all of them."""

_FILL = np.uint8(235)  # about the empty background of a stained film; the same for every sample
_WHITE = 245.0  # the background after white balance
_DISC_SHARE = 0.36  # radius by the crop's side: 9 um of 25 um, beyond most leukocytes
_RIM_SHARE = 0.016  # of the crop's side: 0.4 um of a 25 um crop, so that no membrane is cut


def sample_cells(n: int, k: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw ``k`` of ``n`` cells without replacement; all of them where n <= k. Ascending."""
    if n <= k:
        return np.arange(n, dtype=np.int64)
    return np.sort(rng.choice(n, size=k, replace=False)).astype(np.int64)


def to_tensor(images: NDArray[np.uint8]) -> torch.Tensor:
    """Images uint8 (N, S, S, 3) as float32 (N, 3, S, S) in 0..1."""
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return torch.from_numpy(planes).to(torch.float32).div_(255.0)


def collate(bags: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad bags of features to one block.

    Args:
        bags: B tensors (N_i, D).

    Returns:
        features (B, Nmax, D), zero where padded; mask bool (B, Nmax), True is a real cell.

    Raises:
        ConfigError: no bag, or bags of different D.
    """
    if not bags or len({bag.shape[1] for bag in bags}) != 1:
        raise ConfigError("collate: expected one bag or more, all with the same number of features")
    longest = max(len(bag) for bag in bags)
    features = bags[0].new_zeros((len(bags), longest, bags[0].shape[1]))
    mask = torch.zeros((len(bags), longest), dtype=torch.bool, device=bags[0].device)
    for row, bag in enumerate(bags):
        features[row, : len(bag)] = bag
        mask[row, : len(bag)] = True
    return features, mask


def stream(
    reader: BagReader,
    batch_size: int,
    background: Background = "keep",
    recolour: Recolour | None = None,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Go through a bag in the memory of one batch.

    Yields:
        index of the batch's first cell, images uint8 (n, S, S, 3) with n <= ``batch_size``.

    Raises:
        ConfigError: ``batch_size`` below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: expected at least 1")
    for start in range(0, reader.n_cells, batch_size):
        yield start, shown(reader, start, start + batch_size, background, recolour)


def shown(
    reader: BagReader,
    start: int,
    stop: int,
    background: Background,
    recolour: Recolour | None = None,
) -> NDArray[np.uint8]:
    """Cells ``start`` to ``stop`` of a bag as an encoder shall see them, uint8 (n, S, S, 3)."""
    images = reader.images(start, stop)
    if recolour is not None:
        images = recolour(images)
    if background == "keep":
        return images
    colours = background_colours(reader, start, stop)
    if recolour is not None:
        patches = np.rint(colours).astype(np.uint8)[:, None, None, :]
        colours = recolour(patches)[:, 0, 0, :].astype(np.float32)
    return apply_background(images, reader.masks(start, stop), background, colours)


def background_colours(reader: BagReader, start: int, stop: int) -> NDArray[np.float32]:
    """Colour (n, 3), 0 to 255, of the empty background around each cell; white where unknown."""
    sources = reader.sources
    known = [sources[i].diagnostics.get("background_rgb") for i in reader.sources_of(start, stop)]
    return np.array([rgb or (_WHITE,) * 3 for rgb in known], dtype=np.float32).reshape(-1, 3)


def apply_background(
    images: NDArray[np.uint8],
    masks: NDArray[np.uint8],
    mode: Background,
    colours: NDArray[np.float32] | None = None,
) -> NDArray[np.uint8]:
    """Take the surroundings or the cell out of its picture.

    The fill is one constant grey, so it carries nothing of the sample. A crop whose mask is empty
    becomes all fill in every mode but ``keep``: a control must not see the cell because it was not
    found.

    Args:
        images: uint8 (N, S, S, 3).
        masks: uint8 (N, S, S); 0 outside, else cell.
        mode: ``keep`` returns the images as they are; ``mask`` fills what is outside the cell;
            ``isolate`` balances the background to one white, grows the cell by 0.4 um of a 25 um
            crop and fades the rest to that white; ``only`` fills the cell and a disc of 18 um of
            a 25 um crop, which hides the cell's outline (control: what the surroundings tell).
        colours: (N, 3), 0 to 255, of the empty background, for ``isolate``; None: white already.

    Raises:
        ConfigError: unknown mode, or masks that do not fit.
    """
    if mode == "keep":
        return images
    if mode not in {"mask", "isolate", "only"} or masks.shape != images.shape[:3]:
        raise ConfigError(
            f"background '{mode}' with images {images.shape} and masks {masks.shape}: expected "
            "keep, mask, isolate or only, and one mask of the same size for each image"
        )
    if mode == "isolate":
        return np.stack(
            [
                _isolated(image, mask, None if colours is None else colours[i])
                for i, (image, mask) in enumerate(zip(images, masks, strict=True))
            ]
        )
    is_cell = masks > 0
    empty = ~is_cell.any(axis=(1, 2), keepdims=True)
    hidden = (~is_cell if mode == "mask" else is_cell | _disc(masks.shape[1])) | empty
    return np.where(hidden[..., None], _FILL, images)


def _isolated(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], colour: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    """One cell on white, uint8 (S, S, 3)."""
    rim_px = max(1, round(_RIM_SHARE * len(mask)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim_px + 1, 2 * rim_px + 1))
    grown = cv2.dilate((mask > 0).astype(np.uint8), disc).astype(np.float32)
    weight = cv2.GaussianBlur(grown, (0, 0), rim_px / 3)[..., None]
    gain = np.float32(1.0) if colour is None else _WHITE / np.maximum(colour, 1.0)
    balanced = np.minimum(image.astype(np.float32) * gain, 255.0)
    blended = balanced * weight + np.float32(_WHITE) * (1 - weight)
    return np.asarray(np.rint(blended), dtype=np.uint8)


def _disc(side_px: int) -> NDArray[np.bool_]:
    """A centred disc, the same for every crop of this side: bool (side, side)."""
    y, x = np.ogrid[:side_px, :side_px]
    centre = (side_px - 1) / 2
    inside: NDArray[np.bool_] = (x - centre) ** 2 + (y - centre) ** 2 <= (
        _DISC_SHARE * side_px
    ) ** 2
    return inside
