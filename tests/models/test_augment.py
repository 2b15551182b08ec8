"""Augmentation: drawn, applied, recorded; the same alone and in a batch."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from millie.config import AugmentConfig
from millie.errors import ConfigError
from millie.models.augment import Draw, apply, draw

STILL = AugmentConfig(
    rotation_degrees=0, flip=False, scale=0, hue=0, saturation=0, gamma=0, noise=0
)


def crops(n: int = 1, height: int = 17, width: int = 17) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(4))


def draws(n: int, config: AugmentConfig | None = None, seed: int = 0) -> list[Draw]:
    rng = np.random.default_rng(seed)
    return [draw(config or AugmentConfig(), rng) for _ in range(n)]


def test_zero_ranges_change_nothing() -> None:
    x = crops(3)
    found = draws(3, STILL)
    assert all(d == Draw(noise_seed=d.noise_seed) for d in found)
    assert torch.equal(apply(x, found), x)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(1, 6))
def test_a_batch_equals_one_by_one(seed: int, n: int) -> None:
    x, chosen = crops(n), draws(n, seed=seed)
    alone = torch.cat([apply(x[i : i + 1], [chosen[i]]) for i in range(n)])
    torch.testing.assert_close(apply(x, chosen), alone, atol=1e-6, rtol=0)


def test_the_record_replays_after_json() -> None:
    x, chosen = crops(4), draws(4)
    read = [Draw.from_dict(json.loads(json.dumps(d.to_dict()))) for d in chosen]
    assert read == chosen
    assert torch.equal(apply(x, read), apply(x, chosen))
    with pytest.raises(ConfigError, match="unknown 'blur'"):
        Draw.from_dict({"blur": 1})


def test_equal_seeds_draw_alike() -> None:
    assert draws(5, seed=3) == draws(5, seed=3)
    assert draws(5, seed=3) != draws(5, seed=4)


def test_draws_keep_to_their_ranges_and_fill_them() -> None:
    config = AugmentConfig()
    found = draws(2000)
    limits = {
        "rotation_degrees": (-config.rotation_degrees, config.rotation_degrees),
        "zoom": (1 - config.scale, 1 + config.scale),
        "hue": (-config.hue, config.hue),
        "saturation": (1 - config.saturation, 1 + config.saturation),
        "gamma": (1 / (1 + config.gamma), 1 + config.gamma),
        "noise_sd": (0, config.noise),
    }
    for name, (low, high) in limits.items():
        values = np.array([getattr(d, name) for d in found])
        assert values.min() >= low
        assert values.max() <= high
        assert np.ptp(values) > 0.98 * (high - low)
    assert abs(np.mean([math.log(d.gamma) for d in found])) < 0.01
    for name in ("mirror_x", "mirror_y"):
        assert 0.45 < np.mean([getattr(d, name) for d in found]) < 0.55


@pytest.mark.parametrize("field", list(AugmentConfig.model_fields))
def test_a_range_set_to_zero_stops_its_change_and_no_other(field: str) -> None:
    off = AugmentConfig().model_copy(update={field: False if field == "flip" else 0})
    usual, without = draws(20), draws(20, off)
    own = {"flip": {"mirror_x", "mirror_y"}, "scale": {"zoom"}, "noise": {"noise_sd"}}.get(
        field, {field}
    )
    for name in Draw().to_dict():
        before, after = ([getattr(d, name) for d in each] for each in (usual, without))
        if name in own:
            assert before != after
            assert all(value == getattr(Draw(), name) for value in after)
        else:
            assert before == after


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_exact(turns: int) -> None:
    x = crops()
    found = apply(x, [Draw(rotation_degrees=90 * turns)])
    torch.testing.assert_close(found, torch.rot90(x, turns, (2, 3)), atol=2e-6, rtol=0)


def test_mirrors_are_exact() -> None:
    x = crops(height=9, width=14)
    torch.testing.assert_close(apply(x, [Draw(mirror_x=True)]), x.flip(3), atol=2e-6, rtol=0)
    torch.testing.assert_close(apply(x, [Draw(mirror_y=True)]), x.flip(2), atol=2e-6, rtol=0)


def test_zoom_above_1_enlarges() -> None:
    disc = torch.zeros(1, 3, 41, 41)
    disc[..., 15:26, 15:26] = 1.0
    larger, smaller = apply(disc, [Draw(zoom=1.5)]), apply(disc, [Draw(zoom=0.7)])
    assert larger.mean() == pytest.approx(float(disc.mean()) * 1.5**2, rel=0.1)
    assert smaller.mean() == pytest.approx(float(disc.mean()) * 0.7**2, rel=0.1)


@pytest.mark.parametrize("angle", [20, 45, 77, -130])
def test_no_black_corners(angle: float) -> None:
    bright = 0.7 + 0.3 * crops()
    found = apply(bright, [Draw(rotation_degrees=angle, zoom=0.9)])
    assert found.min() >= 0.7 - 1e-6


def test_a_rotation_of_a_rectangle_keeps_shapes() -> None:
    """A disc stays a disc where the image is not square."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(80.0), indexing="ij")
    disc = (((x - 39.5) ** 2 + (y - 19.5) ** 2) < 12**2).float().expand(1, 3, 40, 80)
    found = apply(disc, [Draw(rotation_degrees=37)])
    assert (found - disc).abs().mean() < 0.01


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999))
def test_values_stay_between_0_and_1(seed: int) -> None:
    wild = AugmentConfig(hue=0.5, saturation=0.9, gamma=0.9, noise=0.9, scale=0.9)
    found = apply(crops(4), draws(4, wild, seed))
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.isfinite().all()


def test_hue_keeps_grey_and_luminance() -> None:
    grey = torch.full((1, 3, 4, 4), 0.4)
    torch.testing.assert_close(apply(grey, [Draw(hue=0.3)]), grey, atol=2e-3, rtol=0)
    muted = 0.4 + 0.1 * crops()
    weights = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]
    found = apply(muted, [Draw(hue=0.2, saturation=1.3)])
    torch.testing.assert_close((found * weights).sum(1), (muted * weights).sum(1), atol=1e-5,
                               rtol=0)  # fmt: skip
    assert not torch.allclose(found, muted, atol=1e-2)


def test_hue_there_and_back() -> None:
    muted = 0.4 + 0.1 * crops()
    back = apply(apply(muted, [Draw(hue=0.2)]), [Draw(hue=-0.2)])
    torch.testing.assert_close(back, muted, atol=1e-5, rtol=0)


def test_saturation_0_is_grey() -> None:
    found = apply(crops(), [Draw(saturation=0.0)])
    torch.testing.assert_close(found[:, 0], found[:, 2], atol=1e-2, rtol=0)


def test_gamma_is_an_exponent() -> None:
    x = crops()
    torch.testing.assert_close(apply(x, [Draw(gamma=1.2)]), x**1.2)


def test_noise_has_the_drawn_size_and_seed() -> None:
    x = torch.full((2, 3, 64, 64), 0.5)
    same, other = Draw(noise_sd=0.05, noise_seed=1), Draw(noise_sd=0.05, noise_seed=2)
    found = apply(x, [same, other])
    assert float((found - x).std()) == pytest.approx(0.05, rel=0.05)
    assert torch.equal(apply(x[:1], [same])[0], found[0])
    assert not torch.equal(found[0], found[1])


def test_the_input_is_left_alone() -> None:
    x = crops(2)
    before = x.clone()
    apply(x, draws(2))
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("images", "n", "message"),
    [
        (crops(2), 3, "3 draws for 2 crops"),
        (torch.zeros(1, 9, 9, 3), 1, r"expected float \(N, 3, H, W\)"),
        (torch.zeros(1, 3, 9, 9, dtype=torch.uint8), 1, "uint8"),
    ],
)
def test_wrong_input_is_refused(images: Tensor, n: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply(images, draws(n))
