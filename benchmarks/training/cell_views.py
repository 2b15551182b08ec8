"""Cells on white and random views of them: the input of the training of the blood-cell encoder.

Cells come from bag stores (``millie segment``), so the package's own segmentation cut them. A
view changes stain, camera, outline and position, in optical density where light was absorbed
(Beer-Lambert); what stays is the cell. This module owns no training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from millie.bags.loading import background_colours
from millie.bags.store import BagReader, Store
from segmentation import UM_PX, fields_other

SIDE_PX = 128
"""Side of a packed cell, 25 um: 0.195 um/px."""
VIEW_PX = 96
CROP_SHARE = 6 / 7
"""The encoder sees the central 21.4 um of a 25 um crop."""
CROP_UM = 25.0
FOLDERS = {"neut": "segmented neutrophil", "lymp": "lymphocyte", "mono": "monocyte",
           "eosi": "eosinophil", "baso": "basophil"}  # fmt: skip
"""Types by folder of `bcisc`, whose fields show about one leukocyte each."""
WHITE = 245.0
_DISTANCE_GAIN = 6.0
_DENSITY = -np.log(np.maximum(np.arange(256), 4) / WHITE).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Cells:
    """Packed cells.

    Attributes:
        planes: uint8 (N, 128, 128, 4): RGB balanced to a white of 245, and the distance from the
            outline, 128 + 6 px (inside above 128).
        names: file of each.
        labels: cell type by the store's manifest or the file's folder, empty where there is none.
        bags: patient or pool of each.
        sources: folder of the store of each.
    """

    planes: NDArray[np.uint8]
    names: tuple[str, ...]
    labels: tuple[str, ...]
    bags: tuple[str, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, keep: NDArray[np.bool_]) -> Cells:
        """Some of them."""
        fields = (self.names, self.labels, self.bags, self.sources)
        return Cells(self.planes[keep], *(tuple(np.array(f)[keep].tolist()) for f in fields))


def pack(store: Path) -> Cells:
    """All outlined cells of a store."""
    planes, names, labels, bags = [], [], [], []
    for summary in Store(store).index():
        with BagReader(summary.path, verify=False) as bag:
            images, masks = bag.images(0, bag.n_cells), bag.masks(0, bag.n_cells)
            colours = background_colours(bag, 0, bag.n_cells)
            for cell, image, mask, colour in zip(bag.cells, images, masks, colours, strict=True):
                if not mask.any():
                    continue
                planes.append(_plane(image, mask, colour))
                names.append(bag.sources[cell.source].name)
                labels.append(cell.label or _by_folder(names[-1], planes[-1]))
                bags.append(summary.patient)
    sources = (store.name,) * len(names)
    return Cells(np.stack(planes), tuple(names), tuple(labels), tuple(bags), sources)


def _by_folder(name: str, plane: NDArray[np.uint8]) -> str:
    """Type by the folder, unless the cell is as pale as a red cell."""
    inside = plane[..., 1][plane[..., 3] > 128]
    return FOLDERS.get(Path(name).parent.name, "") if np.percentile(inside, 20) < 110 else ""


def joined(parts: Sequence[Cells]) -> Cells:
    """All cells of several stores."""
    fields = zip(*((p.names, p.labels, p.bags, p.sources) for p in parts), strict=True)
    return Cells(
        np.concatenate([part.planes for part in parts]),
        *(tuple(value for values in field for value in values) for field in fields),
    )


def red_cells(root: Path) -> Cells:
    """Red cells by the boxes of `bccd_like_416`, six an image, as a wrong outline cuts them."""
    planes, names = [], []
    side = round(CROP_UM / UM_PX["bccd_like_416"])
    for sample in fields_other("bccd_like_416")(root):
        image, boxes = sample.image, sample.red_cells
        white = np.percentile(image.reshape(-1, 3), 95, axis=0).astype(np.float32)
        for left, top, right, bottom in boxes[:: max(1, len(boxes) // 6)][:6]:
            x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            corner = round(x - side / 2), round(y - side / 2)
            moved = np.array([[1, 0, -corner[0]], [0, 1, -corner[1]]], float)
            crop = cv2.warpAffine(image, moved, (side, side), borderMode=cv2.BORDER_REFLECT)
            mask = np.zeros((side, side), np.uint8)
            axes = (round(width / 2), round(height / 2))
            cv2.ellipse(mask, (side // 2, side // 2), axes, 0, 0, 360, 1, -1)
            planes.append(_plane(crop, mask, white))
            names.append(f"red/{sample.name}/{len(planes)}")
    label, bag = ("no leukocyte",) * len(names), ("red cells",) * len(names)
    return Cells(np.stack(planes), tuple(names), label, bag, bag)


def _plane(
    image: NDArray[np.uint8], mask: NDArray[np.uint8], colour: NDArray[np.float32]
) -> NDArray[np.uint8]:
    balanced = np.minimum(image.astype(np.float32) * (WHITE / np.maximum(colour, 1.0)), 255.0)
    small = cv2.resize(balanced, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
    inside = (mask > 0).astype(np.uint8)
    signed = cv2.distanceTransform(inside, cv2.DIST_L2, 5)
    signed -= cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5)
    scale = SIDE_PX / len(mask)
    signed = cv2.resize(signed, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA) * scale
    distance = np.clip(128 + _DISTANCE_GAIN * signed, 0, 255)
    return np.dstack([np.rint(small), distance[..., None]]).astype(np.uint8)


def is_held_out(name: str) -> bool:
    """Whether a cell belongs to the fifth that is never trained on, by the digest of its name."""
    return hashlib.sha256(Path(name).name.encode()).digest()[0] % 5 == 0


def view(
    plane: NDArray[np.uint8], rng: np.random.Generator, *, whole: bool = False
) -> NDArray[np.float32]:
    """One random view (96, 96, 3), 0 to 1; the whole crop (128, 128, 3) if asked for."""
    warped = _moved(plane, rng, whole=whole)
    density = cv2.LUT(np.ascontiguousarray(warped[..., :3]), _DENSITY)
    light = cv2.exp(-cv2.transform(density, _stain(rng)))
    light = light * np.exp(rng.normal(0, 0.02, 3)).astype(np.float32)
    light = np.clip(light, 1e-3, 1.05) ** np.float32(np.exp(rng.normal(0, 0.2)))
    light = cv2.transform(light, _hue(rng))
    on_white = 1 + (light - 1) * _alpha(warped[..., 3], rng)[..., None]
    return np.clip(_camera(on_white * np.float32(WHITE / 255), rng), 0, 1)


def _moved(plane: NDArray[np.uint8], rng: np.random.Generator, *, whole: bool) -> NDArray[np.uint8]:
    """Turned, mirrored, scaled by up to a fifth, stretched and shifted."""
    side = SIDE_PX if whole else VIEW_PX
    zoom = (1.0 if whole else VIEW_PX / (SIDE_PX * CROP_SHARE)) * np.exp(rng.uniform(-0.2, 0.2))
    stretch, angle = np.exp(rng.uniform(-0.08, 0.08)), rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    flip = 1 if rng.random() < 0.5 else -1
    matrix = turn @ np.diag([zoom * stretch * flip, zoom / stretch])
    from_centre = (SIDE_PX - 1) / 2 + rng.uniform(-6, 6, 2)
    offset = (side - 1) / 2 - matrix @ from_centre
    return np.asarray(cv2.warpAffine(
        plane, np.hstack([matrix, offset[:, None]]), (side, side),
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(245, 245, 245, 0),
    ))  # fmt: skip


def _stain(rng: np.random.Generator) -> NDArray[np.float32]:
    """Matrix of the optical densities: strength x 0.55 to 1.7, hue and mixing of the dyes."""
    matrix = np.diag(np.exp(rng.normal(0, 0.2, 3))) + rng.normal(0, 0.1, (3, 3)) * (1 - np.eye(3))
    return np.asarray(matrix * np.exp(rng.uniform(np.log(0.55), np.log(1.7))), dtype=np.float32)


_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


def _hue(rng: np.random.Generator) -> NDArray[np.float32]:
    """Matrix of intensities: hue turned by up to 0.07 of the circle, chroma x 0.45 to 1.4."""
    if rng.random() < 0.3:
        return np.eye(3, dtype=np.float32)
    return _turned(rng.uniform(-0.07, 0.07), float(np.exp(rng.uniform(-0.8, 0.34))))


def _turned(hue: float, chroma: float) -> NDArray[np.float32]:
    angle = 2 * np.pi * hue
    sine, cosine = chroma * np.sin(angle), chroma * np.cos(angle)
    turn = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    return np.asarray(np.linalg.inv(_YIQ) @ turn @ _YIQ, dtype=np.float32)


def recoloured(images: torch.Tensor, hue: float, chroma: float) -> torch.Tensor:
    """Images (N, 3, S, S), 0 to 1, with the hue turned (1 is the circle) and another chroma."""
    matrix = torch.from_numpy(_turned(hue, chroma))
    return torch.einsum("ij,njhw->nihw", matrix, images).clamp(0, 1)


def _alpha(distance: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Weight of the cell: the outline eroded or grown, sometimes with some of its surroundings."""
    grow_px = rng.uniform(5, 14) if rng.random() < 0.25 else rng.uniform(-1.5, 5)
    signed_px = (distance.astype(np.float32) - 128) / np.float32(_DISTANCE_GAIN)
    ramp: NDArray[np.float32] = np.clip((signed_px + np.float32(grow_px)) / 2 + 0.5, 0, 1)
    return ramp


def _camera(light: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """A coarser camera; then blur, noise, sharpening or JPEG, or none of them."""
    if rng.random() < 0.2:
        side = len(light)
        small = round(side / rng.uniform(1.3, 2.6))
        coarse = cv2.resize(light, (small, small), interpolation=cv2.INTER_AREA)
        light = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    drawn = rng.random()
    if drawn < 0.35:
        light = cv2.GaussianBlur(light, (0, 0), rng.uniform(0.3, 1.3))
    elif drawn < 0.5:
        noise = rng.standard_normal(light.shape, dtype=np.float32)
        light = light + noise * np.float32(rng.uniform(0.005, 0.03))
    elif drawn < 0.6:
        light = light + rng.uniform(0.3, 1.0) * (light - cv2.GaussianBlur(light, (0, 0), 1.2))
    elif drawn < 0.75:
        coded = np.rint(np.clip(light, 0, 1) * 255).astype(np.uint8)
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))]
        file = cv2.imencode(".jpg", coded[..., ::-1], quality)[1]
        light = cv2.imdecode(file, cv2.IMREAD_COLOR)[..., ::-1] / np.float32(255)
    return light


def batch(planes: NDArray[np.uint8], rng: np.random.Generator) -> torch.Tensor:
    """Random views (N, 3, 96, 96) float32, 0 to 1, in the order of channels last."""
    views = torch.from_numpy(np.stack([view(plane, rng) for plane in planes]))
    return views.permute(0, 3, 1, 2)


def changed(planes: NDArray[np.uint8], seed: int) -> torch.Tensor:
    """Whole crops (N, 3, 128, 128) that have all undergone the same random change."""
    views = [view(plane, np.random.default_rng(seed), whole=True) for plane in planes]
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2)


def whole(planes: NDArray[np.uint8]) -> torch.Tensor:
    """The cells as they are (N, 3, 128, 128): grown by 0.4 um and feathered, nothing changed."""
    signed_px = (planes[..., 3:].astype(np.float32) - 128) / np.float32(_DISTANCE_GAIN)
    alpha = np.clip((signed_px + 2.1) / 2 + 0.5, 0, 1)
    on_white = (WHITE + (planes[..., :3] - np.float32(WHITE)) * alpha) / 255
    return torch.from_numpy(on_white.astype(np.float32)).permute(0, 3, 1, 2)


def zoomed(planes: NDArray[np.uint8], factor: float) -> torch.Tensor:
    """Whole crops (N, 3, 128, 128) with the cell larger by a factor, as a wrong um/px makes it."""
    offset = (SIDE_PX - 1) / 2 * (1 - factor)
    matrix = np.array([[factor, 0, offset], [0, factor, offset]])
    moved = [
        cv2.warpAffine(
            plane, matrix, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT, borderValue=(245, 245, 245, 0),
        )
        for plane in planes
    ]  # fmt: skip
    return whole(np.stack(moved))


def plain(planes: NDArray[np.uint8]) -> torch.Tensor:
    """The same at the encoder's scale (N, 3, 96, 96)."""
    edge = (SIDE_PX - round(SIDE_PX * CROP_SHARE)) / 2
    zoom = VIEW_PX / (SIDE_PX * CROP_SHARE)
    matrix = np.array([[zoom, 0, -edge * zoom], [0, zoom, -edge * zoom]])
    moved = [
        cv2.warpAffine(image, matrix, (VIEW_PX, VIEW_PX), flags=cv2.INTER_LINEAR)
        for image in whole(planes).permute(0, 2, 3, 1).numpy()
    ]
    return torch.from_numpy(np.stack(moved)).permute(0, 3, 1, 2)
