"""Train the network that finds leukocytes: ``python benchmarks/training/leukocytes.py --help``.

The pictures are stored first: ``python benchmarks/training/leukocyte_sources.py ../shared/data
CACHE``. With ``--without`` whole sources are left out, to measure on them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from leukocyte_network import Block, LeukocyteNet
from leukocyte_sources import Picture, load
from leukocyte_views import UM_PX, Laid, example, forget
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

BATCH = 8
PEAK_RATE = 2.5e-3
OF_FIELDS = {
    "bccd": 3.0,
    "raabin_575": 3.0,
    "bccd_like_416": 1.5,
    "draaslan_256": 1.5,
    "all_idb1": 3.0,
    "bcisc": 1.0,
    "synthetic": 1.5,
    "discs": 0.6,
    "nothing": 0.4,
}
OF_CROPS = {
    "bccd": 1.5, "raabin_575": 1.5, "bccd_like_416": 0.5, "draaslan_256": 0.5, "wbc_masks": 3.0,
    "all_idb2": 0.7, "pbc_cells": 3.0, "bone_marrow_cells": 1.5, "apl_aml": 1.5, "lmu_cells": 1.0,
    "nothing": 0.4, "platelets": 3.0,
}  # fmt: skip
"""Share of a source in canvases of one field and in quarters of one."""
PASTED = {
    "pbc_cells",
    "wbc_masks",
    "lmu_cells",
    "all_idb2",
    "apl_aml",
    "bone_marrow_cells",
    "bccd",
    "raabin_575",
    "platelets",
}


class Chooser:
    """Draws pictures, sources by their share."""

    def __init__(self, pictures: list[Picture], shares: dict[str, float]) -> None:
        self._by = {s: [p for p in pictures if p.source == s] for s in shares}
        self._names = [s for s in shares if self._by[s]]
        weights = np.array([shares[s] for s in self._names])
        self._weights = weights / weights.sum()

    def __call__(self, rng: np.random.Generator) -> Picture:
        """A picture of a source drawn by its share."""
        pictures = self._by[self._names[rng.choice(len(self._names), p=self._weights)]]
        return pictures[rng.integers(len(pictures))]


def loss_of(out: Tensor, scale: Tensor, truth: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parts of the loss, each a mean over what is known."""
    bce = nn.functional.binary_cross_entropy_with_logits
    fine = nn.functional.pixel_shuffle(out[:, :8], 2)
    known = truth["fine_known"]
    cells = truth["fine"][:, 1:]
    weight = torch.cat([1 + 4 * cells, 1 + 2 * cells], 1)  # nuclei are parted from their own cells
    parts = {
        "masks": (bce(fine, truth["fine"], reduction="none") * known * weight).sum() / known.sum(),
    }
    coarse, seen = truth["coarse"], truth["known"]
    each = bce(out[:, 8:12], coarse[:, :4], reduction="none")
    weight = 1 + torch.tensor([8.0, 1.0, 6.0, 6.0])[:, None, None] * coarse[:, :4]
    weight[:, 0] += 2 * coarse[:, 1] + 3 * coarse[:, 2]  # red cells and platelets are no leukocytes
    weight *= seen[:, :4]
    parts["centre"] = 2 * (each[:, 0] * weight[:, 0]).sum() / seen[:, 0].sum()
    parts["things"] = 0.5 * (each[:, 1:] * weight[:, 1:]).sum() / seen[:, 1:4].sum().clamp(min=1)
    away = (out[:, 12:] - coarse[:, 4:]).abs() * seen[:, 4:]
    parts["offset"] = away.sum() / seen[:, 4:].sum().clamp(min=1)
    um = truth["scale"]
    there = um > 0
    wanted = torch.log2(um.clamp(min=0.01) / UM_PX)
    spread = scale[:, 1].clamp(-4, 2)
    nll = (scale[:, 0] - wanted).abs() * torch.exp(-spread) + spread
    parts["scale"] = 0.3 * (nll * there).sum() / there.sum().clamp(min=1)
    return parts


def batches(pictures: list[Picture], seed: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Pixels and targets without end."""
    rng = np.random.default_rng(seed)
    field, crop = Chooser(pictures, OF_FIELDS), Chooser(pictures, OF_CROPS)
    donors = [p for p in pictures if p.source in PASTED]
    laid = Laid([p for p in donors if p.cells.any()], [p for p in donors if (p.things == 2).any()])
    while True:
        made = [
            example([field(rng)], laid, [crop(rng) for _ in range(4)], rng) for _ in range(BATCH)
        ]
        pixels = torch.from_numpy(np.stack([m[0] for m in made]))
        yield pixels, {k: torch.from_numpy(np.stack([m[1][k] for m in made])) for k in made[0][1]}


def train(
    pictures: list[Picture], seconds: float, seed: int, start: Path | None, peak: float
) -> LeukocyteNet:
    """Fit for so long; the rate falls to zero at the end."""
    torch.manual_seed(seed)
    forget()
    net = LeukocyteNet().to(memory_format=torch.channels_last)
    if start:
        net.load_state_dict(load_file(start))
    optimiser = torch.optim.AdamW(net.parameters(), peak, weight_decay=1e-3)
    mean: dict[str, float] = {}
    began, step, making = time.monotonic(), 0, 0.0
    source = batches(pictures, seed)
    while (done := (time.monotonic() - began) / seconds) < 1:
        rate = peak * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * np.cos(np.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = rate
        t = time.monotonic()
        pixels, truth = next(source)
        making += time.monotonic() - t
        parts = loss_of(*net(pixels.to(memory_format=torch.channels_last)), truth)
        total = sum(parts.values())
        optimiser.zero_grad()
        total.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 2.0)
        optimiser.step()
        for name, value in parts.items():
            mean[name] = 0.98 * mean.get(name, value.item()) + 0.02 * value.item()
        step += 1
        if step % 100 == 0:
            told = " ".join(f"{k} {v:.4f}" for k, v in mean.items())
            print(
                f"{step} {time.monotonic() - began:.0f} s (made {making:.0f} s) {told}", flush=True
            )
    return net.eval()


def folded(net: LeukocyteNet) -> dict[str, Tensor]:
    """Weights of convolutions, the normalisation after each taken in, half precision."""
    weights: dict[str, Tensor] = {}
    joined: set[nn.Module] = set()
    for name, part in net.named_modules():
        if isinstance(part, Block):
            conv, norm = part[0], part[1]
            gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            weights[f"{name}.weight"] = conv.weight * gain[:, None, None, None]
            weights[f"{name}.bias"] = norm.bias - norm.running_mean * gain
            joined.add(conv)
        elif isinstance(part, nn.Conv2d) and part not in joined:
            weights[f"{name}.weight"], weights[f"{name}.bias"] = part.weight, part.bias
    return {name: value.detach().half().contiguous() for name, value in weights.items()}


def averaged(net: LeukocyteNet, start: Path, share: float) -> LeukocyteNet:
    """The mean of the weights before and after, ``share`` of the former.

    What a network gains on known sources when it is trained on, it loses in part on others; the
    mean keeps most of both (Wortsman et al., CVPR 2022, "Robust fine-tuning of zero-shot models").
    """
    before, after = load_file(start), net.state_dict()
    net.load_state_dict({
        name: torch.lerp(value, before[name], share) if value.is_floating_point() else value
        for name, value in after.items()
    })  # fmt: skip
    return net


def save(net: LeukocyteNet, path: Path) -> None:
    """Write what the package loads and beside it, as ``.state``, what training can go on from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in net.state_dict().items()}
    save_file(state, path.with_suffix(".state"))
    save_file(folded(net), path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--without", nargs="*", default=[])
    parser.add_argument("--part", choices=("all", "even"), default="even")
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="a .state file to go on from")
    parser.add_argument("--keep", type=float, default=0.0, help="share of the start in the end")
    parser.add_argument("--rate", type=float, default=PEAK_RATE)
    args = parser.parse_args()
    torch.set_num_threads(1)
    net = train(
        load(args.cache, set(args.without), args.part),
        args.seconds,
        args.seed,
        args.start,
        args.rate,
    )
    if args.start and args.keep:
        net = averaged(net, args.start, args.keep)
    save(net, args.out)


if __name__ == "__main__":
    main()
