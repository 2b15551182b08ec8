"""Teach the encoder `blood_cell` what leukaemia adds to normal blood, from diagnoses alone.

Goes on from a training by ``blood_cells.py``. Cells of a bag with a diagnosis are dealt, without a
label of their own, to the types of normal cells or to a blast of the bag's lineage (ALL:
lymphoblast; AML and APL: myeloblast). Cells that a normal mature type explains are that type; of
the others those are blasts that a linear model tells from all cells of normal bags, in three rounds
(multiple instance learning by mi-SVM, Andrews et al., NIPS 2002). Mature cells of the patients
themselves are thereby counter-examples, so that the stain of a laboratory does not pay. The network
then learns the types with blasts among them; a cell of a normal bag may be any type but a blast.

``--without`` leaves sites out, for the table that decides (leave one source out).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from blood_cells import UNSPECIFIC, Training, rarity, shared_arguments
from cell_views import Cells, joined, pack, plain, red_cells
from learner import BLASTS, TYPES, Learner, Teacher, folded
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional
from whitening import evened, types_of, whitened

from millie.bags.store import Store

BLAST_OF = {"ALL": "lymphoblast", "AML": "myeloblast", "APL": "myeloblast"}
ALL_TYPES = (*TYPES, *BLASTS)
MATURE = [i for i, name in enumerate(TYPES) if name not in UNSPECIFIC["immature granulocyte"]]

EXPLAINED, SUSPECT = 0.85, 0.5
"""Probability of a mature type from which it explains a cell; share of a bag that may be blasts."""
BLAST, NO_BLAST = 0.5, 0.2
ROUNDS, INVERSE_STRENGTH, STEADY = 3, 0.001, 20.0

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class Bags:
    """Cells of bags with a diagnosis.

    Attributes:
        cells: all of them.
        diagnosis: of each cell's bag.
        site: of each cell's bag.
    """

    def __init__(self, store: Path, without: list[str]) -> None:
        about = {bag.patient: (bag.label or "", bag.site) for bag in Store(store).index()}
        cells = pack(store)
        keep = np.array([about[bag][1] not in without for bag in cells.bags])
        self.cells = cells.chosen(keep)
        self.diagnosis = np.array([about[bag][0] for bag in self.cells.bags])
        self.site = np.array([about[bag][1] for bag in self.cells.bags])
        self.bag = np.array(self.cells.bags)


@torch.no_grad()
def seen(network: Learner, planes: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Learnt features (N, 192) and probabilities of the types of unchanged cells."""
    network.eval()
    parts = [network(plain(planes[i : i + 128])) for i in range(0, len(planes), 128)]
    vectors = torch.cat(parts)
    return vectors.numpy().astype(float), network.types(vectors).softmax(1).numpy().astype(float)


def dealt(typed: Floats, rows: Floats, vectors: Floats, shares: Floats, bags: Bags) -> Indices:
    """Index into ``ALL_TYPES`` of each cell of the bags; -1: left open.

    Args:
        typed: vectors (M, 192) of cells of known normal type.
        rows: (M, 11) their types.
        vectors: (N, 192) of the bags' cells.
        shares: (N, 11) probabilities of normal types.
        bags: of these cells.
    """
    normal = bags.diagnosis == "normal"
    nearest, explained = shares.argmax(1), shares[:, MATURE].max(1)
    score = 1 - explained
    for number in range(ROUNDS):
        kinds = np.full(len(vectors), -1)
        kinds[normal] = nearest[normal]
        for bag in np.unique(bags.bag[~normal]):
            own = np.flatnonzero(bags.bag == bag)
            blast = ALL_TYPES.index(BLAST_OF[bags.diagnosis[own[0]]])
            if number == 0:
                suspects = (score[own] >= np.quantile(score[own], 1 - SUSPECT)) & (
                    explained[own] < EXPLAINED
                )
                cleared = explained[own] >= EXPLAINED
            else:
                third = np.sort(score[own])[-min(3, len(own))]  # a bag has some, even a poor one
                suspects = score[own] >= min(BLAST, third)
                cleared = score[own] < NO_BLAST
            kinds[own[cleared]] = nearest[own[cleared]]
            kinds[own[suspects]] = blast
        model, mean, std = fitted(typed, rows, vectors, kinds, bags)
        found = model.predict_proba((vectors - mean) / std)
        blasts = [list(model.classes_).index(ALL_TYPES.index(name)) for name in BLASTS
                  if ALL_TYPES.index(name) in model.classes_]  # fmt: skip
        score = found[:, blasts].sum(1)
    return kinds


def fitted(
    typed: Floats, rows: Floats, vectors: Floats, kinds: Indices, bags: Bags
) -> tuple[LogisticRegression, Floats, Floats]:
    """Logistic regression of the types; rare sources and types count more."""
    known = kinds >= 0
    x = np.concatenate([typed, vectors[known]])
    y = np.concatenate([rows.argmax(1), kinds[known]])
    source = np.concatenate([np.full(len(typed), "typed"), bags.site[known]])
    _, inverse, count = np.unique(
        np.char.add(y.astype(str), source.astype(str)), return_inverse=True, return_counts=True
    )
    weight = 1 / np.sqrt(count[inverse] + STEADY)
    mean, std = x.mean(0), x.std(0) + 1e-6
    model = LogisticRegression(C=INVERSE_STRENGTH, max_iter=150)
    return model.fit((x - mean) / std, y, sample_weight=weight / weight.mean()), mean, std


class BlastTraining(Training):
    """Goes on with the network of an earlier training and two types more."""

    def __init__(
        self, typed: Cells, bags: Bags, state: dict[str, object], arguments: argparse.Namespace
    ) -> None:
        super().__init__(typed, bags.cells, arguments)
        self.restore(state)
        network = self.teacher.network
        typed_vectors, _ = seen(network, self.planes)
        vectors, shares = seen(network, bags.cells.planes)
        self.kinds = torch.from_numpy(dealt(typed_vectors, self.rows, vectors, shares, bags))
        self.normal = torch.from_numpy(bags.diagnosis == "normal")
        place = np.char.add(bags.diagnosis.astype(str), bags.site.astype(str))
        numbers = np.unique(place, return_inverse=True)[1]
        self.other_chance = rarity(numbers) / rarity(numbers).sum()
        self.queue_sources.fill_(-1)
        self.other_sources = torch.from_numpy(np.unique(bags.site, return_inverse=True)[1]) + 1000
        self.learner.load_state_dict(network.state_dict())
        self.learner.widen(len(BLASTS))
        self.teacher = Teacher(self.learner)
        self.rows = np.pad(self.rows, ((0, 0), (0, len(BLASTS))))
        self.start_optimiser()
        self.step = 0

    def told(self) -> None:
        """Print how the cells of each class were dealt."""
        for blast in (*BLASTS, None):
            kind = ALL_TYPES.index(blast) if blast else -1
            print(blast or "open", int((self.kinds == kind).sum()), "of", len(self.kinds))

    def types_loss(self, logits: Tensor, own: Indices, other: Indices) -> Tensor:
        """Types of typed cells, of dealt ones, and no blasts in normal bags."""
        wanted = torch.from_numpy(self.rows[own]) * 0.9 + 0.1 / len(ALL_TYPES)
        loss = functional.cross_entropy(logits[: len(own)], wanted, reduction="sum")
        rest, kinds = logits[len(own) :], self.kinds[other]
        healthy = self.normal[other]
        blast = rest.softmax(1)[:, -len(BLASTS) :].sum(1)
        loss = loss - torch.log1p(-blast[healthy].clamp(max=0.999)).sum()
        known = ~healthy & (kinds >= 0)
        loss = loss + functional.cross_entropy(
            rest[known], kinds[known], reduction="sum", label_smoothing=0.1
        )
        return loss / len(logits)


def read_arguments() -> argparse.Namespace:
    parser = shared_arguments(__doc__)
    parser.add_argument("--bags", type=Path, required=True, help="store of the cohort")
    parser.add_argument("--without", nargs="*", default=[], help="sites that are left out")
    parser.add_argument("--start", type=Path, required=True, help="state.pt of blood_cells.py")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--typed-cells", type=int, default=48)
    parser.add_argument("--untyped-cells", type=int, default=56)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    typed = joined([pack(store) for store in arguments.typed])
    if arguments.red_cells:
        typed = joined([typed, red_cells(arguments.red_cells)])
    bags = Bags(arguments.bags, arguments.without)
    state = torch.load(arguments.start, weights_only=True)
    arguments.start = None
    training = BlastTraining(typed, bags, state, arguments)
    training.told()
    started, losses = time.monotonic(), []
    while training.step < arguments.steps:
        losses.append(training.advance())
        if training.step % 50 == 0 or training.step == arguments.steps:
            torch.save(training.state(), arguments.out / "state.pt")
            print(training.step, round(time.monotonic() - started), np.mean(losses, 0), flush=True)
            losses = []
    network = training.teacher.network
    rng = np.random.default_rng(arguments.seed)
    cells = joined([typed, bags.cells])
    tensors = whitened(folded(network), cells, rng)
    tensors |= types_of(network, tensors)
    save_file(evened(tensors, cells, rng), arguments.out / "blood_cell.safetensors")


if __name__ == "__main__":
    main()
