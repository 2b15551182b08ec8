"""The paper's own kind of training: VGG-16 from its fifth block on, in the profile `paper`.

`python benchmarks/vgg16_block5.py STORE WEIGHTS WORK` takes the store that `millie reproduce
apl-aml --profile paper` has cut, and the file of ``benchmarks/vgg16_weights.py``. Maps behind the
fourth block are computed once (147 kB a cell, WORK/maps.npy). Then folds are trained by the
profile's settings (three of them, the first repeat of `millie reproduce`; no augmentation, which
cached maps do not allow) until ``--seconds`` are over: a fold that is cut short by them says so,
and the next run goes on at its next epoch, to the same end (the profile has neither dropout nor
momentum). The block is computed in bfloat16 (half the time where the processor has it) on weights,
standardisation, head and sums in float32. Prints the losses of every epoch and, of each fold, the
ROC AUC of APL in its test patients with a DeLong interval. What is finished in WORK is not done
again. ``--frozen`` trains fusion and head alone, on the same folds; where both are there, the
paired difference is printed.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from millie.bags.store import BagReader, Store
from millie.config import Config, load
from millie.learning.material import participants
from millie.learning.splits import Fold, make_splits
from millie.models.network import Head, Standardiser
from millie.models.vgg import Vgg, vgg16
from millie.statistics.intervals import delong_difference, delong_interval

BLOCKS = 4
SIDE = 12
"""Pixels of a map behind the fourth block."""
BATCH = 16
Maps = NDArray[np.float16]


def halves(weights: Path) -> tuple[Vgg, int]:
    """The encoder, and the number of its layers up to the end of the fourth block."""
    encoder = vgg16()
    lacking = encoder.load_state_dict(load_file(weights), strict=False).missing_keys
    if any(name.startswith("features.") for name in lacking):
        raise SystemExit(f"{weights}: not the weights of benchmarks/vgg16_weights.py")
    pools = [i for i, layer in enumerate(encoder.features) if isinstance(layer, nn.MaxPool2d)]
    return encoder.to(memory_format=torch.channels_last).eval(), pools[BLOCKS - 1] + 1


@torch.inference_mode()
def mapped(store: Store, encoder: Vgg, cut: int, path: Path) -> Maps:
    """Maps of all cells (N, 512, 12, 12), patient by patient in the order of the store."""
    if path.exists():
        return np.asarray(np.load(path, mmap_mode="r"))
    shape = (sum(bag.n_cells for bag in store.index()), 512, SIDE, SIDE)
    partial = path.with_suffix(".partial.npy")
    maps = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
    done = 0
    for bag in store.index():
        with BagReader(bag.path) as reader:
            for start in range(0, reader.n_cells, BATCH):
                pixels = torch.from_numpy(reader.images(start, start + BATCH)).permute(0, 3, 1, 2)
                cells = (pixels / 255 - encoder.offset) / encoder.scale
                out = encoder.features[:cut](cells.to(memory_format=torch.channels_last))
                maps[done : done + len(out)] = out.half().numpy()
                done += len(out)
        print(f"{done} of {shape[0]} cells", flush=True)
    maps.flush()
    partial.rename(path)
    return np.asarray(np.load(path, mmap_mode="r"))


class Top(nn.Module):
    """The fifth block, the mean over its maps, and from there on the package's own network."""

    def __init__(self, encoder: Vgg, cut: int, config: Config) -> None:
        super().__init__()
        self.block = copy.deepcopy(encoder.features[cut:])
        self.standardiser = Standardiser(encoder.dim)
        self.head = Head(encoder.dim, config.model.hidden, 2, config.model.dropout)

    def vectors(self, maps: Tensor) -> Tensor:
        """Features (n, 512) of cells."""
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = self.block(maps.to(memory_format=torch.channels_last))
        return out.float().mean(dim=(2, 3))

    def forward(self, maps: Tensor) -> Tensor:
        """Logits (2,) of one bag (n, 512, 12, 12): the maximum over its cells."""
        logits: Tensor = self.head(self.standardiser(self.vectors(maps)).amax(dim=0)[None])[0]
        return logits


@torch.inference_mode()
def pooled(top: Top, maps: Maps) -> Maps:
    """What the untrained fifth block makes of maps, as maps of one pixel (N, 512, 1, 1)."""
    parts = [
        top.vectors(torch.from_numpy(maps[start : start + BATCH].astype(np.float32)))
        for start in range(0, len(maps), BATCH)
    ]
    return torch.cat(parts).half().numpy()[..., None, None]


class Bags:
    """Maps by patient."""

    def __init__(self, store: Store, maps: Maps) -> None:
        self._maps, self._span, start = maps, {}, 0
        for bag in store.index():
            self._span[bag.patient] = slice(start, start + bag.n_cells)
            start += bag.n_cells

    def __call__(
        self, patient: str, most: int = 0, rng: np.random.Generator | None = None
    ) -> Tensor:
        """All maps of a patient, or so many drawn at random."""
        own = self._maps[self._span[patient]]
        if rng is not None and len(own) > most:
            own = own[np.sort(rng.choice(len(own), most, replace=False))]
        return torch.from_numpy(own.astype(np.float32))


@torch.inference_mode()
def logits_of(top: Top, bags: Bags, patients: tuple[str, ...]) -> Tensor:
    """Logits (P, 2) of whole bags."""
    top.eval()
    return torch.stack([top(bags(patient)) for patient in patients])


@dataclass
class Course:
    """A fold's training up to now: losses (training, validation) of every epoch, and the networks.

    ``best`` are the parameters of the epoch with the smallest validation loss, ``last`` those of
    the last epoch.
    """

    history: list[tuple[float, float]]
    best: dict[str, Tensor]
    last: dict[str, Tensor]

    @classmethod
    def begun(cls, top: Top, path: Path) -> Course:
        """The course that an earlier run has left, or a new one from ``top``."""
        if not path.exists():
            return cls([], copy.deepcopy(top.state_dict()), copy.deepcopy(top.state_dict()))
        return cls(**torch.load(path, weights_only=True))

    def keep(self, path: Path) -> None:
        """Write it in one move."""
        partial = path.with_suffix(".partial")
        torch.save(vars(self), partial)
        partial.rename(path)

    def is_over(self, max_epochs: int, patience: int) -> bool:
        """Whether training has come to its end by the profile's rules."""
        checked = [validation for _, validation in self.history]
        if not checked:
            return False
        since = len(checked) - 1 - checked.index(min(checked))
        return len(checked) >= max_epochs or since >= patience


def trained(top: Top, bags: Bags, fold: Fold, truth: dict[str, int], config: Config,
            path: Path, ends_at: float) -> Course:  # fmt: skip
    """Train ``top`` on from what ``path`` holds, at least an epoch, until ``ends_at``."""
    course, settings = Course.begun(top, path), config.training
    top.load_state_dict(course.last)
    optimiser = torch.optim.SGD(top.parameters(), lr=settings.learning_rate)
    wanted = torch.tensor([truth[patient] for patient in fold.validation])
    while not course.is_over(settings.max_epochs, settings.patience):
        epoch = len(course.history) + 1
        rng = np.random.default_rng((settings.seed, epoch))
        order = list(rng.permutation(np.array(fold.train)))
        losses = []
        top.train()
        for start in range(0, len(order), settings.patients_per_step):
            step = [str(patient) for patient in order[start : start + settings.patients_per_step]]
            optimiser.zero_grad()
            for patient in step:
                out = top(bags(patient, settings.cells_per_step, rng))
                loss = functional.cross_entropy(out[None], torch.tensor([truth[patient]]))
                (loss / len(step)).backward()
                losses.append(loss.item())
            optimiser.step()
        checked = functional.cross_entropy(logits_of(top, bags, fold.validation), wanted).item()
        if checked < min((validation for _, validation in course.history), default=float("inf")):
            course.best = copy.deepcopy(top.state_dict())
        course.history.append((float(np.mean(losses)), checked))
        course.last = top.state_dict()
        course.keep(path)
        print(f"{fold.name} epoch {epoch}: training {course.history[-1][0]:.4f}, validation "
              f"{checked:.4f}", flush=True)  # fmt: skip
        if time.monotonic() > ends_at:
            break
    return course


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--frozen", action="store_true", help="leave the fifth block as it is")
    parser.add_argument("--seconds", type=float, default=10_800, help="of training")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    work = arguments.work / ("frozen" if arguments.frozen else "trained")
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    store, config = Store(arguments.store), load(profile="paper")
    encoder, cut = halves(arguments.weights)
    maps = mapped(store, encoder, cut, arguments.work / "maps.npy")
    if arguments.frozen:
        maps = pooled(Top(encoder, cut, config), maps)
    bags = Bags(store, maps)
    labels = participants(store).labels
    truth = {patient: int(label == "APL") for patient, label in labels.items()}
    settings, ends_at = config.evaluation, time.monotonic() + arguments.seconds
    splits = make_splits(
        labels, settings.folds, 1, settings.seed, config.training.validation_fraction
    )
    for fold in splits.assignments:
        path = work / f"{fold.name}.json"
        if not path.exists() or json.loads(path.read_text())["cut_short"]:
            if time.monotonic() > ends_at:
                break
            print(f"{fold.name}: {len(fold.train)} patients train, {len(fold.validation)} choose "
                  f"the epoch, {len(fold.test)} are tested", flush=True)  # fmt: skip
            torch.manual_seed(config.training.seed)
            top = Top(encoder, cut, config)
            if arguments.frozen:
                top.block = nn.Identity()
            with torch.inference_mode():
                top.standardiser.fit(top.vectors(bags(patient)) for patient in fold.train)
            course = trained(
                top, bags, fold, truth, config, work / f"{fold.name}.course.pt", ends_at
            )
            top.load_state_dict(course.best)
            scores = logits_of(top, bags, fold.test).diff(dim=1)[:, 0].tolist()
            short = not course.is_over(config.training.max_epochs, config.training.patience)
            found = {"scores": dict(zip(fold.test, scores, strict=True)),
                     "losses": course.history, "cut_short": short}  # fmt: skip
            path.write_text(json.dumps(found))
        found = json.loads(path.read_text())
        is_apl = np.array([bool(truth[patient]) for patient in found["scores"]])
        auc = delong_interval(is_apl, np.array(list(found["scores"].values())), 0.95)
        print(
            f"{fold.name}: AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}), {is_apl.sum()} "
            f"APL, {(~is_apl).sum()} AML; {len(found['losses'])} epochs"
            + (", cut short by --seconds" if found["cut_short"] else "")
        )
        other = arguments.work / ("trained" if arguments.frozen else "frozen") / path.name
        if other.exists():
            theirs = json.loads(other.read_text())["scores"]
            score, against = (
                np.array([scores[patient] for patient in found["scores"]])
                for scores in (found["scores"], theirs)
            )
            gap = delong_difference(is_apl, score, against, 0.95)
            print(
                f"  less {other.parent.name}: {gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f})"
            )


if __name__ == "__main__":
    main()
