"""Train the networks of the segmentation that leave sources out: the measure that decides.

``PYTHONPATH=benchmarks python benchmarks/training/leave_out.py --data ../shared/data --work WORK``
stores the pictures of all sources and trains one network for each fold, on even-numbered images of
the others; what lies in WORK already is kept. ``benchmarks/segmentation.py --left-out WORK`` then
measures each source by the network that never saw it.
"""

from __future__ import annotations

from pathlib import Path

import torch
from leukocyte_sources import load, write
from leukocytes import PEAK_RATE, save, train

from segmentation import FOLDS, data_parser


def main() -> None:
    parser = data_parser(__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for pictures and networks")
    parser.add_argument("--seconds", type=float, default=2400, help="of training for each fold")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cache = arguments.work / "cache"
    if not cache.exists():
        partial = arguments.work / "cache.partial"
        write(arguments.data, partial, [])
        partial.rename(cache)
    for fold, sources in FOLDS.items():
        path = arguments.work / f"{fold}.safetensors"
        if not path.exists():
            pictures = load(cache, set(sources), "even")
            save(train(pictures, arguments.seconds, 0, None, PEAK_RATE), path)


if __name__ == "__main__":
    main()
