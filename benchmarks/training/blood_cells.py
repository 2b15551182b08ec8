"""Train the encoder `blood_cell`: types of normal cells, and likeness of two views of any cell.

Over bag stores cut by ``millie segment``; the commands stand in README.md here. Supervised: types
of normal cells of the typed stores, four fifths of each, and red cells as no leukocytes.
Self-supervised: every cell's two views are to be nearer each other than to other cells *of the same
source* (momentum contrast, He et al., CVPR 2020), without labels: cells of other sources would be
told apart by their stain. What is kept, in OUT/state.pt, is the running average of the weights; a
second training (``blasts.py``) goes on from it. Resumes from there too, logs to OUT/log.csv.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from cell_views import Cells, batch, is_held_out, joined, pack, plain, red_cells
from learner import TYPES, Learner, Teacher, resume_folded
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor
from torch.nn import functional

UNSPECIFIC = {
    "immature granulocyte": ("metamyelocyte", "myelocyte", "promyelocyte"),
    "neutrophil": ("segmented neutrophil", "band neutrophil"),
    "platelet": ("no leukocyte",),
}
QUEUE, HEAT, SHARE = 4096, 0.2, 0.25
"""Remembered cells of the contrast, its temperature, and its weight beside the types' loss."""


def targets(labels: tuple[str, ...]) -> NDArray[np.float32]:
    """Shares of the types (N, 11); zero where the type is none of them."""
    rows = np.zeros((len(labels), len(TYPES)), np.float32)
    for row, label in zip(rows, labels, strict=True):
        names = UNSPECIFIC.get(label, (label,))
        for name in names:
            if name in TYPES:
                row[TYPES.index(name)] = 1 / len(names)
    return rows


class Training:
    """Everything that one step changes."""

    def __init__(self, typed: Cells, untyped: Cells, arguments: argparse.Namespace) -> None:
        torch.manual_seed(arguments.seed)
        self.arguments = arguments
        rows = targets(typed.labels)
        keep = (rows.sum(1) > 0) & ~np.array([is_held_out(name) for name in typed.names])
        self.planes, self.rows, self.others = typed.planes[keep], rows[keep], untyped.planes
        numbers = {name: i for i, name in enumerate(sorted({*typed.sources, *untyped.sources}))}
        own = np.array([numbers[name] for name in typed.sources])[keep]
        other = np.array([numbers[name] for name in untyped.sources])
        self.sources, self.other_sources = torch.from_numpy(own), torch.from_numpy(other)
        share = (self.rows / np.sqrt(np.maximum(self.rows.sum(0), 1))).sum(1) * rarity(own)
        self.chance = share / share.sum()
        self.other_chance = rarity(other) / rarity(other).sum()
        self.learner = Learner().to(memory_format=torch.channels_last)
        if arguments.start:
            chosen = np.random.default_rng(arguments.seed).permutation(len(typed))[:256]
            resume_folded(self.learner, load_file(arguments.start), plain(typed.planes[chosen]))
        self.teacher = Teacher(self.learner)
        self.start_optimiser()
        self.queue = functional.normalize(torch.randn(QUEUE, 96), dim=1)
        self.queue_sources = torch.full((QUEUE,), -1)
        self.step = 0

    def start_optimiser(self) -> None:
        """A new optimiser of all weights."""
        decayed = [p for p in self.learner.parameters() if p.ndim > 1]
        plain_ones = [p for p in self.learner.parameters() if p.ndim <= 1]
        groups = [{"params": decayed}, {"params": plain_ones, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=self.arguments.rate, weight_decay=0.05)

    def advance(self) -> tuple[float, float]:
        """One step; the losses of types and contrast."""
        rng = np.random.default_rng((self.arguments.seed, self.step))
        own = rng.choice(len(self.planes), self.arguments.typed_cells, p=self.chance)
        other = rng.choice(
            len(self.others), self.arguments.untyped_cells, replace=False, p=self.other_chance
        )
        planes = np.concatenate([self.planes[own], self.others[other]])
        keys = self.teacher.project(batch(planes, rng))
        self.learner.train()
        vectors = self.learner(batch(planes, rng))
        types = self.types_loss(self.learner.types(vectors), own, other)
        sources = torch.cat([self.sources[own], self.other_sources[other]])
        contrast = self._contrast(self.learner.project(vectors), keys, sources)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        self.optimiser.zero_grad()
        (types + SHARE * contrast).backward()
        self.optimiser.step()
        self.teacher.follow(self.learner)
        self.queue = torch.cat([keys, self.queue])[:QUEUE]
        self.queue_sources = torch.cat([sources, self.queue_sources])[:QUEUE]
        self.step += 1
        return types.item(), contrast.item()

    def types_loss(
        self, logits: Tensor, own: NDArray[np.int64], other: NDArray[np.int64]
    ) -> Tensor:
        """Cross entropy of the typed cells, which come first.

        Args:
            logits: (N, 11) of typed and other cells.
            own: indices of the typed ones.
            other: of the others.
        """
        del other
        wanted = torch.from_numpy(self.rows[own]) * 0.9 + 0.1 / len(TYPES)
        return functional.cross_entropy(logits[: len(own)], wanted)

    def _contrast(self, queries: Tensor, keys: Tensor, sources: Tensor) -> Tensor:
        logits = queries @ torch.cat([keys, self.queue]).T / HEAT
        foreign = sources[:, None] != torch.cat([sources, self.queue_sources])[None]
        logits = logits.masked_fill(foreign, -torch.inf)
        return functional.cross_entropy(logits, torch.arange(len(queries)))

    def _rate(self) -> float:
        warm = min(1.0, (self.step + 1) / 150)
        fall = 0.5 * (1 + np.cos(np.pi * min(1.0, self.step / self.arguments.steps)))
        return float(self.arguments.rate * warm * max(fall, 0.01))

    def state(self) -> dict[str, object]:
        """All that a resumed run needs."""
        return {
            "learner": self.learner.state_dict(), "teacher": self.teacher.network.state_dict(),
            "optimiser": self.optimiser.state_dict(), "queue": self.queue, "step": self.step,
            "queue_sources": self.queue_sources,
            "averaged": self.teacher.steps,
        }  # fmt: skip

    def restore(self, state: dict[str, object]) -> None:
        """Go on from a saved state."""
        self.learner.load_state_dict(state["learner"])
        self.teacher.network.load_state_dict(state["teacher"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.queue, self.step, self.teacher.steps = state["queue"], state["step"], state["averaged"]
        self.queue_sources = state["queue_sources"]


def rarity(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weight of each cell (N,): a source counts by the root of its cells."""
    return np.asarray(1 / np.sqrt(np.bincount(numbers)[numbers]))


def report(teacher: Teacher, typed: Cells, test: Cells | None) -> dict[str, float]:
    """Balanced accuracy on the held-out fifth, and on another laboratory's cells where given."""
    rows = targets(typed.labels)
    held = np.array([is_held_out(n) for n in typed.names]) & (rows.max(1) == 1)
    result = judged(teacher.scores(typed.planes[held]), rows[held].argmax(1), "own")
    if test is not None:
        rows = targets(test.labels)
        known = rows.max(1) == 1
        scores = teacher.scores(test.planes)
        result |= judged(scores[known], rows[known].argmax(1), "other")
        cells = known | np.array([name == "blast" for name in test.labels])
        promyelocyte = TYPES.index("promyelocyte")
        is_one = (rows[:, promyelocyte] == 1)[cells]
        result["other_promyelocyte_auc"] = roc_auc_score(is_one, scores[cells, promyelocyte])
    return result


def judged(scores: NDArray[np.float32], truth: NDArray[np.int64], name: str) -> dict[str, float]:
    promyelocyte = TYPES.index("promyelocyte")
    return {
        f"{name}_accuracy": float((scores.argmax(1) == truth).mean()),
        f"{name}_balanced": balanced_accuracy_score(truth, scores.argmax(1)),
        f"{name}_promyelocyte_auc": roc_auc_score(truth == promyelocyte, scores[:, promyelocyte]),
    }


def shared_arguments(about: str | None) -> argparse.ArgumentParser:
    """Arguments of both trainings."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--typed", type=Path, nargs="+", required=True, help="PBC first")
    parser.add_argument("--red-cells", type=Path, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def read_arguments() -> argparse.Namespace:
    parser = shared_arguments(__doc__)
    parser.add_argument("--start", type=Path, help="weights of an earlier training to go on from")
    parser.add_argument("--untyped", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, nargs="*", help="typed stores of other laboratories")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--typed-cells", type=int, default=64)
    parser.add_argument("--untyped-cells", type=int, default=40)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    typed = joined([pack(store) for store in arguments.typed])
    if arguments.red_cells:
        typed = joined([typed, red_cells(arguments.red_cells)])
    untyped = joined([pack(store) for store in arguments.untyped])
    test = joined([pack(store) for store in arguments.test]) if arguments.test else None
    print(Counter(typed.labels), len(untyped), flush=True)
    training = Training(typed, untyped, arguments)
    saved, log = arguments.out / "state.pt", arguments.out / "log.csv"
    if saved.exists():
        training.restore(torch.load(saved, weights_only=True))
    started, losses = time.monotonic(), []
    while training.step < arguments.steps:
        losses.append(training.advance())
        if training.step % 250 and training.step < arguments.steps:
            continue
        torch.save(training.state(), saved)
        mean = np.mean(losses, axis=0)
        result = {"step": training.step, "seconds": time.monotonic() - started,
                  "types": mean[0], "contrast": mean[1],
                  **report(training.teacher, typed, test)}  # fmt: skip
        losses = []
        if not log.exists():
            log.write_text(",".join(result) + "\n")
        with log.open("a") as file:
            file.write(",".join(f"{value:.4g}" for value in result.values()) + "\n")


if __name__ == "__main__":
    main()
