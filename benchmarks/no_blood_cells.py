"""Whether the encoder tells things that are no blood cells from blood cells.

    python benchmarks/no_blood_cells.py STORE...

Prints a line a bag of `millie segment`: the share of its cells whose likeliest type is "no
leukocyte", and the median length of their vectors. The encoder centres blood cells, and makes what
stain and camera do to them of equal size in every direction: a vector is long where a cell is
unlike those that it learnt from.
`benchmarks/safety.py DATA WORK --only "no blood"` leaves images of what is no blood in WORK/images.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from millie.bags.loading import stream
from millie.bags.store import BagReader, Store
from millie.config import Config
from millie.models.blood_cell import TYPES
from millie.models.encoders import build_encoder


@torch.no_grad()
def main() -> None:
    """Print the two figures of every bag."""
    encoder = build_encoder(Config().model).eval()
    types = encoder.types
    assert types is not None
    for path in (path for name in sys.argv[1:] for path in Store(Path(name)).files()):
        with BagReader(path) as reader:
            if reader.n_cells == 0:
                continue
            batches = [
                encoder(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
                for _, images in stream(reader, 64, "isolate")
            ]
            vectors = torch.cat(batches)
            none = types(vectors).argmax(dim=1) == TYPES.index("no leukocyte")
            length = float(np.median(vectors.norm(dim=1).numpy()))
            share = float(none.float().mean())
            print(
                f"{reader.patient_id:<32} {len(vectors):4} cells, no leukocyte {share:4.0%}, "
                f"length {length:4.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
