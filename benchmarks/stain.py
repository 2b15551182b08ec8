"""What a turn of hue or a weaker stain does to the probabilities of the shipped models.

`python benchmarks/stain.py STORE --patients 12 --cells 40`: cells of some patients of a
store are changed as one film would be, encoded and fused. Prints, for each model and change, the
mean over patients of the largest change of a probability, and how often another class is likeliest.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "training"))
from cell_views import pack, recoloured, whole

from millie.config import ModelConfig
from millie.models.bundle import load_bundle, shipped_bundles
from millie.models.encoders import build_encoder

CHANGES = {
    "as it is": whole,
    "hue + 0.05": lambda planes: recoloured(whole(planes), 0.05, 1.0),
    "hue - 0.05": lambda planes: recoloured(whole(planes), -0.05, 1.0),
    "saturation x 0.6": lambda planes: recoloured(whole(planes), 0.0, 0.6),
}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--patients", type=int, default=12)
    parser.add_argument("--cells", type=int, default=40)
    arguments = parser.parse_args()
    cells, encoder = pack(arguments.store), build_encoder(ModelConfig())
    bags = np.array(cells.bags)
    rng = np.random.default_rng(0)
    chosen = rng.choice(np.unique(bags), arguments.patients, replace=False)
    vectors: dict[str, list[Tensor]] = {name: [] for name in CHANGES}
    for bag in chosen:
        planes = cells.planes[np.flatnonzero(bags == bag)[: arguments.cells]]
        for name, change in CHANGES.items():
            vectors[name].append(encoder(change(planes)))
    for model in shipped_bundles():
        bundle = load_bundle(model)
        found = {
            name: np.stack([
                bundle.probabilities(
                    torch.stack([n.bag_logits(bag[None])[0] for n in bundle.networks])
                ).numpy()
                for bag in own
            ])
            for name, own in vectors.items()
        }  # fmt: skip
        before = found.pop("as it is")
        for name, after in found.items():
            moved = np.abs(after - before).max(axis=1)
            other = int((after.argmax(axis=1) != before.argmax(axis=1)).sum())
            print(
                f"{model}, {name}: {moved.mean():.3f}, most {moved.max():.2f}; another class is "
                f"likeliest in {other} of {len(chosen)}"
            )


if __name__ == "__main__":
    main()
