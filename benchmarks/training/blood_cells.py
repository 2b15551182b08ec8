"""Train the encoder `blood_cell`: types of normal cells, and likeness of two views of any cell.

Over bag stores cut by ``millie segment``; the commands stand in README.md here. Supervised: the
cell types of the typed store (PBC, Acevedo 2020), four fifths of it. Self-supervised: every cell's
two views are to be nearer each other than to other cells (momentum contrast, He et al., CVPR 2020),
without labels. What is kept is the running average of the weights, and after it a whitening of
nuisance. Resumes from OUT/state.pt, logs to OUT/log.csv.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from cell_views import Cells, batch, is_held_out, pack
from kinds import kinds_of
from learner import TYPES, Learner, Teacher, folded
from numpy.typing import NDArray
from safetensors.torch import save_file
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor
from torch.nn import functional
from whitening import evened, whitened

UNSPECIFIC = {
    "immature granulocyte": ("metamyelocyte", "myelocyte", "promyelocyte"),
    "neutrophil": ("segmented neutrophil", "band neutrophil"),
}
QUEUE, HEAT, SHARE = 2048, 0.2, 0.25
"""Remembered cells of the contrast, its temperature, and its weight beside the types' loss."""


def targets(labels: tuple[str, ...]) -> NDArray[np.float32]:
    """Shares of the types (N, 10); zero where the type is none of them."""
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
        share = (self.rows / np.sqrt(self.rows.sum(0))).sum(1)
        self.chance = share / share.sum()
        self.learner = Learner().to(memory_format=torch.channels_last)
        self.teacher = Teacher(self.learner)
        decayed = [p for p in self.learner.parameters() if p.ndim > 1]
        plain_ones = [p for p in self.learner.parameters() if p.ndim <= 1]
        groups = [{"params": decayed}, {"params": plain_ones, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=arguments.rate, weight_decay=0.05)
        self.queue = functional.normalize(torch.randn(QUEUE, 96), dim=1)
        self.step = 0

    def advance(self) -> tuple[float, float]:
        """One step; the losses of types and contrast."""
        rng = np.random.default_rng((self.arguments.seed, self.step))
        own = rng.choice(len(self.planes), self.arguments.typed_cells, p=self.chance)
        other = rng.choice(len(self.others), self.arguments.untyped_cells, replace=False)
        planes = np.concatenate([self.planes[own], self.others[other]])
        keys = self.teacher.project(batch(planes, rng))
        self.learner.train()
        vectors = self.learner(batch(planes, rng))
        wanted = torch.from_numpy(self.rows[own]) * 0.9 + 0.1 / len(TYPES)
        types = functional.cross_entropy(self.learner.types(vectors[: len(own)]), wanted)
        contrast = self._contrast(self.learner.project(vectors), keys)
        for group in self.optimiser.param_groups:
            group["lr"] = self._rate()
        self.optimiser.zero_grad()
        (types + SHARE * contrast).backward()
        self.optimiser.step()
        self.teacher.follow(self.learner)
        self.queue = torch.cat([keys, self.queue])[:QUEUE]
        self.step += 1
        return types.item(), contrast.item()

    def _contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        logits = queries @ torch.cat([keys, self.queue]).T / HEAT
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
            "averaged": self.teacher.steps,
        }  # fmt: skip

    def restore(self, state: dict[str, object]) -> None:
        """Go on from a saved state."""
        self.learner.load_state_dict(state["learner"])
        self.teacher.network.load_state_dict(state["teacher"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.queue, self.step, self.teacher.steps = state["queue"], state["step"], state["averaged"]


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


def joined(parts: list[Cells]) -> Cells:
    planes = np.concatenate([part.planes for part in parts])
    names = tuple(name for part in parts for name in part.names)
    labels = tuple(label for part in parts for label in part.labels)
    return Cells(planes, names, labels, tuple(bag for part in parts for bag in part.bags))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--typed", type=Path, required=True, help="store of PBC")
    parser.add_argument("--untyped", type=Path, nargs="+", required=True)
    parser.add_argument("--test", type=Path, help="typed store of another laboratory")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--typed-cells", type=int, default=64)
    parser.add_argument("--untyped-cells", type=int, default=40)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    arguments = read_arguments()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    typed, untyped = pack(arguments.typed), joined([pack(store) for store in arguments.untyped])
    test = pack(arguments.test) if arguments.test else None
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
    network = folded(training.teacher.network)
    cells, rng = joined([typed, untyped]), np.random.default_rng(arguments.seed)
    tensors = whitened(network, cells, rng)
    tensors |= kinds_of(training.teacher.network, tensors, cells, rng)
    save_file(evened(tensors, cells, rng), arguments.out / "blood_cell.safetensors")


if __name__ == "__main__":
    main()
