"""Random views of pictures: any stain, camera, sharpness and scale is just one more sample.

Owns what a training example is: a canvas of 128 px at a random scale about 0.4 um/px, of one field
or of four pictures, with leukocytes pasted in, red cells recoloured up to the darkness of a
nucleus, colours mixed at random in optical density, and its target maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from leukocyte_sources import NO_CELL, NO_CENTRE, NO_NUCLEUS, NO_RED, Picture
from numpy.typing import NDArray
from scipy.ndimage import find_objects

UM_PX = 0.4
SIDE = 128
OUTSIDE = 128  # bit of ``unknown``: no picture there
OFFSET_UM = 5.0
Floats = NDArray[np.float32]


_SHEET = np.random.default_rng(0).normal(0, 1, (512, 512, 3)).astype(np.float32)
_MIDDLES: dict[int, NDArray[np.float64]] = {}
_GROUNDS: dict[int, Floats] = {}  # of the stored pictures, which live as long as a training


def forget() -> None:
    """Forget what is known of the last training's pictures: others may get their numbers."""
    _MIDDLES.clear()
    _GROUNDS.clear()


@dataclass(frozen=True)
class Laid:
    """Pictures with leukocytes and with platelets that are laid into others."""

    leukocytes: list[Picture]
    platelets: list[Picture]


@dataclass
class View:
    """A canvas and its maps; ``um_px`` is 0 where the scale is not known."""

    rgb: Floats
    cells: NDArray[np.uint8]
    nuclei: NDArray[np.uint8]
    things: NDArray[np.uint8]
    unknown: NDArray[np.uint8]
    um_px: Floats


def bright(image: NDArray[np.uint8]) -> Floats:
    """Colour of the brightest common pixels, about that of the background."""
    key = id(image)
    if key not in _GROUNDS:
        thin = image[::3, ::3].reshape(-1, 3)
        _GROUNDS[key] = np.maximum(np.percentile(thin, 92, axis=0), 20).astype(np.float32)
    return _GROUNDS[key]


def middles_of(cells: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Centres (x, y) of the boxes of all leukocytes of a stored picture."""
    key = id(cells)
    if key not in _MIDDLES:
        boxes = [b for b in find_objects(cells) if b]
        _MIDDLES[key] = np.array(
            [[(b[1].start + b[1].stop) / 2, (b[0].start + b[0].stop) / 2] for b in boxes]
        )
    return _MIDDLES[key]


def grain(side: int, rng: np.random.Generator) -> Floats:
    """Noise of unit spread, cut out of one sheet: drawing it anew takes ten times as long."""
    y, x = rng.integers(0, _SHEET.shape[0] - side, 2)
    return _SHEET[y : y + side, x : x + side]


def density(image: NDArray[np.uint8], ground: Floats) -> Floats:
    return -np.log(np.clip((image.astype(np.float32) + 1) / (ground + 1), 0.01, 1.3))


def warp(picture: Picture, side: int, um_px: float, rng: np.random.Generator) -> View:
    """A turned, shifted and scaled part of a picture; a small one shows whole where it can."""
    h, w = picture.cells.shape
    f = picture.um_px / um_px
    angle = rng.choice([0, 90, 180, 270]) + (rng.uniform(-45, 45) if rng.random() < 0.5 else 0)
    stretch = np.exp(rng.normal(0, 0.05))
    turn = np.deg2rad(angle)
    a = f * np.array(
        [[np.cos(turn) * stretch, -np.sin(turn)], [np.sin(turn) * stretch, np.cos(turn)]]
    )
    if rng.random() < 0.5:
        a[:, 0] *= -1
    kind = rng.random()
    if 0.6 < kind < 0.75 and (picture.things == 2).any():
        rows, columns = np.nonzero(picture.things == 2)
        k = rng.integers(len(rows))
        at = np.array([columns[k], rows[k]], float)
    elif kind < 0.6 and len(middles_of(picture.cells)):  # near a leukocyte
        middles = middles_of(picture.cells)
        at = middles[rng.integers(len(middles))]
    else:
        at = np.array([rng.uniform(0, w), rng.uniform(0, h)])
    inner = np.array([w, h]) * f
    free = np.maximum(inner - side, 0) / 2 / f
    at = np.clip(
        at + rng.uniform(-0.4, 0.4, 2) * side / f,
        np.array([w, h]) / 2 - free - 4,
        np.array([w, h]) / 2 + free + 4,
    )
    room = np.maximum(side - inner, 0) / 2
    to = side / 2 + rng.uniform(-1, 1, 2) * room
    m = np.column_stack([a, to - a @ at])
    size = (side, side)
    how = cv2.INTER_LINEAR
    image = picture.image
    if f < 0.5:
        k = int(1 / f)
        image = cv2.resize(image, (max(1, w // k), max(1, h // k)), interpolation=cv2.INTER_AREA)
        m2 = m.copy()
        m2[:, 0] *= w / image.shape[1]
        m2[:, 1] *= h / image.shape[0]
    else:
        m2 = m
    rgb = cv2.warpAffine(image, m2, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
    near = cv2.INTER_NEAREST
    cells, nuclei, things = (
        cv2.warpAffine(x, m, size, flags=near)
        for x in (picture.cells, picture.nuclei, picture.things)
    )
    unknown = cv2.warpAffine(picture.unknown, m, size, flags=near, borderValue=OUTSIDE)
    scale = um_px if picture.scale_known else 0.0
    full = np.full((side, side), scale, np.float32)
    return View(rgb.astype(np.float32), cells, nuclei, things, unknown, full)


def paste(
    view: View,
    ground: Floats,
    sources: list[Picture],
    um_px: float,
    rng: np.random.Generator,
    *,
    crowd: bool,
) -> Floats:
    """Density of a view with leukocytes of other pictures laid in, in a crowd close together."""
    od = density(view.rgb.astype(np.uint8), ground)
    laid: list[tuple[float, float, float]] = []
    gain = np.exp(rng.normal(0, 0.25, 3))
    alike = sources[rng.integers(len(sources))].source
    near = [p for p in sources if p.source == alike] if rng.random() < 0.5 else sources
    for _ in range(rng.integers(3, 9) if crowd else rng.integers(1, 4)):
        source = near[rng.integers(len(near))]
        if source.cells.max() == 0:
            continue
        label = int(rng.integers(1, source.cells.max() + 1))
        rows, columns = np.nonzero(source.cells == label)
        h, w = source.cells.shape
        if (
            len(rows) == 0
            or min(rows.min(), columns.min(), h - 1 - rows.max(), w - 1 - columns.max()) < 1
        ):
            continue
        if (source.unknown[rows, columns] & (NO_CELL | NO_NUCLEUS)).any():
            continue
        f = source.um_px / um_px * rng.uniform(0.9, 1.1)
        radius = np.sqrt(len(rows) / np.pi) * f
        if laid and rng.random() < (0.95 if crowd else 0.4):
            beside = laid[rng.integers(len(laid))]
            turn = rng.uniform(0, 2 * np.pi)
            gap = radius + beside[2] + rng.uniform(-3.2, 1.2) / um_px
            at = np.array(beside[:2]) + gap * np.array([np.cos(turn), np.sin(turn)])
        else:
            at = rng.uniform(0.2, 0.8, 2) * SIDE if crowd else rng.uniform(0, SIDE, 2)
        if any(np.hypot(at[0] - x, at[1] - y) < 0.7 * (radius + r) for x, y, r in laid):
            continue
        laid.append((float(at[0]), float(at[1]), float(radius)))
        turn = rng.uniform(0, 2 * np.pi)
        a = f * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        m = np.column_stack([a, at - a @ np.array([columns.mean(), rows.mean()])])
        mask = cv2.warpAffine((source.cells == label).astype(np.float32), m, (SIDE, SIDE))
        inside = mask > 0.5
        if not inside.any():
            continue
        image = cv2.warpAffine(source.image, m, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
        stain = (gain * np.exp(rng.normal(0, 0.12, 3))).astype(np.float32)
        own = density(image, bright(source.image)) * stain
        nucleus = cv2.warpAffine(source.nuclei, m, (SIDE, SIDE), flags=cv2.INTER_NEAREST)
        if rng.random() < 0.2:  # cytoplasm hardly seen, as in many neutrophils
            solid = cv2.GaussianBlur(nucleus.astype(np.float32), (3, 3), 0)[..., None]
            own *= solid + (1 - solid) * np.float32(rng.uniform(0.15, 0.7))
        soft = cv2.GaussianBlur(mask, (3, 3), 0)[..., None]
        od = od * (1 - soft) + soft * np.maximum(own, rng.choice([0.0, 0.3]) * od)
        view.cells[inside] = min(254, int(view.cells.max()) + 1)
        view.nuclei[inside] = nucleus[inside]
        view.things[inside] = 0
        view.unknown[inside] &= OUTSIDE
    return od


def heap(sources: list[Picture], rng: np.random.Generator) -> tuple[Floats, View]:
    """Density of leukocytes that touch or overlap on an empty ground, cut out close to them."""
    um_px = usual_scale(rng)
    white, scale = (
        np.full((SIDE, SIDE, 3), 255, np.float32),
        np.full((SIDE, SIDE), um_px, np.float32),
    )
    view = View(white, *(np.zeros((SIDE, SIDE), np.uint8) for _ in range(4)), um_px=scale)
    od = paste(view, white[0, 0], sources, um_px, rng, crowd=True)
    x, y, w, h = cv2.boundingRect(view.cells)
    m = int(rng.integers(2, 30))
    seen = np.zeros((SIDE, SIDE), bool)
    seen[max(y - m, 0) : y + h + m, max(x - m, 0) : x + w + m] = True
    view.unknown[~seen] = OUTSIDE
    return od, view


def lay_platelets(
    view: View, od: Floats, laid: Laid, um_px: float, rng: np.random.Generator
) -> None:
    """Platelets, and leukocytes shrunk to them: what is so small is none, whatever its texture."""
    side = len(od)
    for _ in range(rng.integers(1, 5)):
        real = bool(laid.platelets) and rng.random() < 0.75
        sources = laid.platelets if real else laid.leukocytes
        source = sources[rng.integers(len(sources))]
        if real:
            parts = cv2.connectedComponents((source.things == 2).view(np.uint8))[1]
        else:
            parts = source.cells
        drawn = parts == rng.choice(np.unique(parts[parts > 0]))
        rows, columns = np.nonzero(drawn)
        size = 2 * np.sqrt(len(rows) / np.pi)
        wanted = size * source.um_px * rng.uniform(0.7, 1.4) if real else rng.uniform(1.4, 3.0)
        f = wanted / um_px / size
        turn = rng.uniform(0, 2 * np.pi)
        a = f * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        at = side / 2 + rng.normal(0, 0.3, 2) * side / 2
        m = np.column_stack([a, at - a @ np.array([columns.mean(), rows.mean()])])
        mask = cv2.warpAffine(drawn.astype(np.float32), m, (side, side))
        inside = mask > 0.4
        taken = (view.cells > 0) | (view.unknown & (NO_CENTRE | OUTSIDE) > 0)
        if not inside.any() or (inside & taken).any():
            continue
        image = cv2.warpAffine(source.image, m, (side, side), borderMode=cv2.BORDER_REPLICATE)
        stain = rng.uniform(0.5, 1.5) * np.exp(rng.normal(0, 0.2, 3))
        own = density(image, bright(source.image)) * stain.astype(np.float32)
        soft = cv2.GaussianBlur(mask, (3, 3), 0)[..., None]
        od *= 1 - soft
        od += soft * own
        view.things[inside] = 2
        view.unknown[inside] &= ~np.uint8(NO_RED)


def around_leukocytes(view: View) -> Floats:
    """1 on leukocytes and what may be some, falling to 0 around them; (S, S, 1)."""
    sure = ((view.cells > 0) | (view.unknown & NO_CENTRE > 0)).astype(np.float32)
    return cv2.GaussianBlur(cv2.dilate(sure, np.ones((3, 3))), (5, 5), 0)[..., None]


def recolour_red_cells(view: View, od: Floats, rng: np.random.Generator) -> None:
    """Red cells, platelets and debris of another colour, now and then nearly as dark as a nucleus.

    Not in the nuclei's own colour: no film is stained so, and a network that had to learn it gave
    up colour altogether.
    """
    wide = around_leukocytes(view)
    if rng.random() < 0.4:
        outside, inside = od[wide[..., 0] < 0.5], od[(view.nuclei > 0) & (view.cells > 0)]
        dark = np.median(inside) if len(inside) > 20 else rng.uniform(0.4, 1.2)
        red = np.percentile(outside.mean(axis=1), 80) if len(outside) > 50 else 0.3
        gain = np.clip(rng.uniform(0.5, 0.9) * dark / max(red, 0.06), 0.4, 6)
        factor = gain * np.exp(rng.normal(0, 0.1, 3))
    else:
        factor = np.exp(rng.normal(0, 0.4, 3))
    if rng.random() < 0.15:
        factor = factor[rng.permutation(3)]
    od *= wide + (1 - wide) * factor.astype(np.float32)


def overlap_red_cells(view: View, od: Floats, rng: np.random.Generator) -> None:
    """The view laid over itself, shifted, away from leukocytes: red cells twice as dense."""
    shift = tuple(rng.integers(-SIDE // 3, SIDE // 3, 2))
    free = 1 - around_leukocytes(view)
    od += np.roll(od * free, shift, (0, 1)) * free * np.float32(rng.uniform(0.5, 1))
    other = np.roll(view.things, shift, (0, 1))
    there = (view.cells == 0) & (view.things == 0) & (free[..., 0] > 0.5)
    view.things[there & (other == 1)] = 1
    view.unknown |= np.roll(view.unknown, shift, (0, 1)) & np.uint8(NO_RED)


def litter(od: Floats, um_px: float, rng: np.random.Generator) -> None:
    """Debris and stain precipitate: small dark spots that are no leukocyte."""
    for _ in range(rng.integers(1, 12)):
        x, y = rng.integers(0, SIDE, 2)
        radius = rng.uniform(0.2, 1.4) / um_px
        spot = np.zeros((SIDE, SIDE), np.float32)
        axes = (max(1, round(radius)), max(1, round(radius * rng.uniform(0.5, 1))))
        cv2.ellipse(spot, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, 1, -1)
        spot = cv2.GaussianBlur(spot, (3, 3), 0)[..., None]
        od += spot * rng.uniform(0.1, 1.5, 3).astype(np.float32)


def burn_in(rgb: Floats, view: View, rng: np.random.Generator) -> None:
    """Text, a scale bar, or the black surround of an eyepiece; pixels 0 to 1."""
    kind = rng.integers(3)
    ink = np.zeros((SIDE, SIDE), np.uint8)
    x, y = (int(v) for v in rng.integers(0, SIDE, 2))
    if kind == 0:
        text = "".join(rng.choice(list("0123456789um x10ABS")) for _ in range(6))
        cv2.putText(
            ink,
            text,
            (x - 30, y),
            int(rng.integers(0, 4)),
            rng.uniform(0.3, 1.2),
            1,
            int(rng.integers(1, 4)),
        )
    elif kind == 1:
        cv2.rectangle(
            ink, (x, y), (x + int(rng.integers(8, 60)), y + int(rng.integers(1, 5))), 1, -1
        )
    else:
        ink[:] = 1
        turn, far = rng.uniform(0, 2 * np.pi), rng.uniform(120, 300)
        reach = far + rng.uniform(-50, 40)
        cv2.circle(
            ink, (int(64 + far * np.cos(turn)), int(64 + far * np.sin(turn))), int(reach), 0, -1
        )
    colour = rng.choice([0, 0, 1]) if kind < 2 else rng.uniform(0, 0.08)
    if kind < 2 and rng.random() < 0.3:
        colour = rng.uniform(0, 1, 3)
    rgb[ink > 0] = colour
    view.unknown[(ink > 0) & (view.cells > 0)] |= NO_CENTRE | NO_CELL | NO_NUCLEUS


def mixed(od: Floats, rng: np.random.Generator) -> Floats:
    """Another stain: channels exchanged, mixed, stronger or weaker."""
    m = np.eye(3)
    if rng.random() < 0.3:
        m = m[rng.permutation(3)]
    if rng.random() < 0.8:
        m = np.clip(m + rng.normal(0, 0.22, (3, 3)), -0.15, None)
        m /= np.maximum(m.sum(axis=0, keepdims=True), 0.3)
    m *= np.exp(rng.uniform(np.log(0.5), np.log(1.8))) * np.exp(rng.normal(0, 0.12, 3))
    return (od @ m.astype(np.float32)).astype(np.float32)


def camera(od: Floats, rng: np.random.Generator) -> Floats:
    """Pixels 0 to 1 of a density: background colour, light, gamma, blur, noise, JPEG."""
    ground = rng.uniform(0.5, 1.0) * np.ones(3) if rng.random() < 0.4 else rng.uniform(0.5, 1.0, 3)
    if rng.random() < 0.3:
        ramp = np.linspace(-1, 1, od.shape[0], dtype=np.float32)
        tilt = rng.normal(0, 0.15) * ramp[:, None] + rng.normal(0, 0.15) * ramp[None]
        od = od + tilt[..., None].astype(np.float32)
    rgb = ground.astype(np.float32) * np.exp(-od)
    rgb = np.clip(rgb, 0, 1) ** np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    if rng.random() < 0.5:
        rgb = cv2.GaussianBlur(rgb, (0, 0), rng.uniform(0.3, 1.3))
    if rng.random() < 0.15:
        rgb = rgb + 0.7 * (rgb - cv2.GaussianBlur(rgb, (0, 0), 1.0))
    if rng.random() < 0.6:
        rgb = rgb + grain(len(rgb), rng) * np.float32(rng.uniform(0, 0.04))
    rgb = np.clip(rgb, 0, 1)
    if rng.random() < 0.35:
        raw = (rgb * 255).astype(np.uint8)
        coded = cv2.imencode(".jpg", raw, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(20, 90))])[1]
        rgb = cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(np.float32) / 255
    return rgb.astype(np.float32)


def standardised(rgb: Floats, valid: NDArray[np.bool_]) -> Floats:
    """Zero mean and unit spread over what is neither outside nor black; 0 outside."""
    use = valid & (cv2.max(cv2.max(rgb[..., 0], rgb[..., 1]), rgb[..., 2]) > 0.1)
    mean, spread = cv2.meanStdDev(rgb, mask=use.astype(np.uint8) if use.any() else None)
    out = (rgb - mean[:, 0].astype(np.float32)) / (spread[:, 0] + 0.03).astype(np.float32)
    out[~valid] = 0
    return np.clip(out, -6, 6)


def known_ground(view: View, od: Floats) -> None:
    """What is as bright as the background is no red cell."""
    view.unknown[
        (cv2.max(cv2.max(od[..., 0], od[..., 1]), od[..., 2]) < 0.08) & (view.unknown & NO_RED > 0)
    ] &= ~np.uint8(NO_RED)


def tile(
    picture: Picture,
    side: int,
    um_px: float,
    laid: Laid,
    rng: np.random.Generator,
) -> tuple[Floats, View]:
    """Standardised pixels and maps of one picture's view."""
    whole, kind = side == SIDE, rng.random()
    if whole and kind < 0.12:
        od, view = heap(laid.leukocytes, rng)
    else:
        view = warp(picture, side, um_px, rng)
        ground = bright(picture.image)
        if whole and kind < 0.5:
            od = paste(view, ground, laid.leukocytes, um_px, rng, crowd=rng.random() < 0.6)
        else:
            od = density(view.rgb.astype(np.uint8), ground)
    if rng.random() < 0.2:
        lay_platelets(view, od, laid, um_px, rng)
    known_ground(view, od)
    if rng.random() < 0.12:
        overlap_red_cells(view, od, rng)
    if rng.random() < 0.3:
        recolour_red_cells(view, od, rng)
    if whole and rng.random() < 0.15:
        litter(od, um_px, rng)
    rgb = camera(mixed(od, rng), rng)
    if whole and rng.random() < 0.08:
        burn_in(rgb, view, rng)
    return standardised(rgb, view.unknown & OUTSIDE == 0), view


def targets(view: View) -> dict[str, Floats]:
    """Full maps ``fine`` (2, S, S) and half ones ``coarse`` (6, S/2, S/2), and weights of each."""
    half = SIDE // 2
    cells, nuclei = view.cells > 0, (view.nuclei > 0) & (view.cells > 0)
    inside = view.unknown & OUTSIDE == 0
    fine = np.stack([nuclei, cells]).astype(np.float32)
    fine_known = np.stack([
        inside & (view.unknown & NO_NUCLEUS == 0), inside & (view.unknown & NO_CELL == 0)
    ]).astype(np.float32)  # fmt: skip
    small = view.cells[::2, ::2]
    heat, offset = np.zeros((half, half), np.float32), np.zeros((2, half, half), np.float32)
    no_centre = (view.unknown[::2, ::2] & NO_CENTRE) > 0
    um = np.maximum(np.where(view.um_px > 0, view.um_px, UM_PX)[::2, ::2] * 2, 0.1)
    yy, xx = np.mgrid[:half, :half].astype(np.float32)
    for label in np.unique(small[small > 0]):
        mask = small == label
        rows, columns = np.nonzero(mask)
        y, x = rows.mean(), columns.mean()
        px_um = float(um[rows[0], columns[0]])
        radius = np.sqrt(len(rows) / np.pi)
        if radius * px_um < 2.2:
            no_centre |= mask
            continue
        spread = np.clip(0.28 * radius, 1.0, 8.0)
        heat = np.maximum(
            heat,
            np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * spread**2)) * ((mask) | (small == 0)),
        )
        offset[0][mask] = (x - xx[mask]) / (OFFSET_UM / (2 * UM_PX))
        offset[1][mask] = (y - yy[mask]) / (OFFSET_UM / (2 * UM_PX))
    things, unknown = view.things[::2, ::2], view.unknown[::2, ::2]
    here = unknown & OUTSIDE == 0
    coarse = np.stack([heat, things == 1, things == 2, things == 3, offset[0], offset[1]]).astype(
        np.float32
    )
    known = np.stack([
        here & ~no_centre, here & (unknown & NO_RED == 0), here & (unknown & NO_CENTRE == 0),
        small > 0, small > 0, small > 0,
    ]).astype(np.float32)  # fmt: skip
    scale = view.um_px[8::16, 8::16].copy()
    scale[(view.unknown[8::16, 8::16] & OUTSIDE) > 0] = 0
    detect = (view.um_px[::2, ::2] == 0) | (
        (view.um_px[::2, ::2] > 0.2) & (view.um_px[::2, ::2] < 0.8)
    )
    known *= detect
    fine_known *= np.repeat(np.repeat(detect, 2, 0), 2, 1)
    return {
        "fine": fine,
        "fine_known": fine_known,
        "coarse": coarse,
        "known": known,
        "scale": scale,
    }


def example(
    fields: list[Picture], laid: Laid, draw: list[Picture], rng: np.random.Generator
) -> tuple[Floats, dict[str, Floats]]:
    """One canvas (3, S, S) and its targets.

    Args:
        fields: pictures that fill a canvas.
        laid: pictures whose leukocytes and platelets are laid into others.
        draw: four pictures, one for each quarter of a canvas.
        rng: source of chance.
    """
    if rng.random() < 0.5:
        picture = fields[rng.integers(len(fields))]
        um_px = scale_of(picture, rng)
        pixels, view = tile(picture, SIDE, um_px, laid, rng)
    else:
        half = SIDE // 2
        parts = [tile(p, half, scale_of(p, rng), laid, rng) for p in draw]
        joined = {}
        for name in ("rgb", "cells", "nuclei", "things", "unknown", "um_px"):
            a, b, c, d = (getattr(v, name) for _, v in parts)
            if name == "cells":
                b, c, d = (
                    np.where(m > 0, (m % 60) + k, 0).astype(np.uint8)
                    for m, k in ((b, 61), (c, 122), (d, 183))
                )
                a = np.where(a > 0, a % 60 + 1, 0).astype(np.uint8)
            joined[name] = np.vstack([np.hstack([a, b]), np.hstack([c, d])])
        view = View(**joined)
        (a, _), (b, _), (c, _), (d, _) = parts
        pixels = np.vstack([np.hstack([a, b]), np.hstack([c, d])])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)), targets(view)


def scale_of(picture: Picture, rng: np.random.Generator) -> float:
    """um/px of a view: about 0.4, sometimes far from it, which only teaches the scale."""
    if picture.scale_known and rng.random() < 0.15:
        return float(np.exp(rng.uniform(np.log(0.1), np.log(1.4))))
    return usual_scale(rng)


def usual_scale(rng: np.random.Generator) -> float:
    return float(UM_PX * np.exp(rng.uniform(np.log(0.6), np.log(1.7))))
