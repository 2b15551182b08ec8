"""Can the laboratory be read from a cell of one type? A probe of an encoder's learnt features.

`python benchmarks/source_probe.py WEIGHTS STORE...` takes cells of one type (by the label in the
store) from each store, at most as many of each as the smallest has, and prints the balanced
accuracy of a cross-validated logistic regression that tells the stores apart; chance is 1 / stores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).parent / "training"))
from cell_views import pack, whole

from millie.models.blood_cell import BloodCellEncoder

FEWEST, MOST = 20, 80


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("stores", type=Path, nargs="+")
    arguments = parser.parse_args()
    encoder = BloodCellEncoder().eval()
    tensors = {name: t.float() for name, t in load_file(arguments.weights).items()}
    encoder.load_state_dict(
        {n: t for n, t in tensors.items() if n in encoder.state_dict()}, strict=False
    )
    learnt = encoder.dim - encoder.measurements.dim
    packed = [pack(store) for store in arguments.stores]
    rng = np.random.default_rng(0)
    for kind in sorted({label for cells in packed for label in cells.labels if label}):
        own = {cells.sources[0]: cells.planes[np.array(cells.labels) == kind] for cells in packed}
        own = {name: planes for name, planes in own.items() if len(planes) >= FEWEST}
        if len(own) < 2:
            continue
        size = min(MOST, *map(len, own.values()))
        planes = [p[rng.permutation(len(p))[:size]] for p in own.values()]
        x = torch.cat([encoder.parts(whole(p))[:, :learnt] for p in planes]).numpy()
        y = np.repeat(np.arange(len(own)), size)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        found = balanced_accuracy_score(y, cross_val_predict(model, x, y, cv=5))
        told = ", ".join(own)
        print(f"{kind}: {found:.2f} (chance {1 / len(own):.2f}; {size} cells each of {told})")


if __name__ == "__main__":
    main()
