"""Calls of chosen cells by the whole rule: what a film of these cells would have been called.

Owns the draws behind "number of cells" and "smallest share of abnormal cells". Cells are encoded
once; which of them a draw takes is seeded by the patient's name. Image quality is that of the
film the cells are from; the number of cells and the distance from the training are the draw's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from millie.bags.loading import stream
from millie.bags.store import BagReader
from millie.inference.embed import ahead
from millie.inference.gates import reference_distance
from millie.inference.magnification import doubtful_scale
from millie.inference.predict import call_of
from millie.inference.quality import SampleQuality, measure_bag
from millie.outputs.validation.cases import Case, Question, called_class
from millie.outputs.validation.plan import CellNumberPlan, DilutionPlan
from millie.outputs.validation.trials import Trial

if TYPE_CHECKING:
    from millie.config import PredictionConfig
    from millie.pipeline.caller import Caller
    from millie.pipeline.segment_cohort import Progress
    from millie.types import Reason


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """A patient's cells, encoded.

    Attributes:
        features: (N, D) by each runtime.
        usable: (N,) whether a cell counts as usable.
        quality: of the whole film.
        scale: reasons that the images' scale gives.
    """

    features: tuple[torch.Tensor, ...]
    usable: np.ndarray
    quality: SampleQuality
    scale: tuple[Reason, ...]

    @property
    def n_cells(self) -> int:
        """Cells of the film."""
        return len(self.usable)

    def drawn(self, cells: np.ndarray) -> Film:
        """The film with these of its cells alone."""
        usable = self.usable[cells]
        quality = replace(self.quality, n_cells=len(cells), n_usable=int(usable.sum()))
        chosen = torch.from_numpy(cells)
        return Film(tuple(f[chosen] for f in self.features), usable, quality, self.scale)

    def mixed(self, other: Film) -> Film:
        """The cells of both; image quality is this film's."""
        usable = np.concatenate([self.usable, other.usable])
        quality = replace(self.quality, n_cells=len(usable), n_usable=int(usable.sum()))
        pairs = zip(self.features, other.features, strict=True)
        return Film(tuple(torch.cat(pair) for pair in pairs), usable, quality, self.scale)


def read_film(bag: Path, caller: Caller, config: PredictionConfig) -> Film:
    """Encode the cells of a bag; raises as :func:`millie.inference.predict.predict_bag`."""
    background = caller.bundle.config.model.background
    with BagReader(bag) as reader:
        features = tuple(
            torch.cat([
                torch.from_numpy(runtime(images))
                for _, images in ahead(stream(reader, config.batch_size, background))
            ])
            for runtime in caller.runtimes
        )  # fmt: skip
        usable = np.array([cell.quality > 0 for cell in reader.cells])
        scale = doubtful_scale(reader, caller.bundle.reference)
        return Film(features, usable, measure_bag(reader), scale)


def state_of_film(film: Film, caller: Caller, config: PredictionConfig) -> str:
    """The state that these cells end in, as ``predict`` would give it."""
    bundle = caller.bundle
    own = (
        film.features
        if len(film.features) == len(bundle.networks)
        else (film.features * len(bundle.networks))
    )
    with torch.no_grad():
        logits = torch.stack([
            network.bag_logits(cells[None])[0]
            for network, cells in zip(bundle.networks, own, strict=True)
        ])  # fmt: skip
        point = dict(zip(bundle.labels, bundle.probabilities(logits).tolist(), strict=True))
    quality = replace(
        film.quality,
        distance=reference_distance(bundle.reference, film.features[0].double().mean(dim=0)),
    )
    return call_of(bundle, point, film.features, quality, film.scale, config, caller.screen).state


def in_a_fixed_order(patients: Iterable[str]) -> list[str]:
    """Patients in an order that has nothing to do with their names, always the same."""
    return sorted(patients, key=lambda name: hashlib.sha256(name.encode(errors="replace")).digest())


def number_trials(
    cases: Sequence[Case],
    bags: Mapping[str, Path],
    caller: Caller,
    config: PredictionConfig,
    asked: CellNumberPlan,
    negative: frozenset[str],
    progress: Progress,
) -> list[Trial]:
    """Fewer cells of films with a call.

    Args:
        cases: patients of the runs.
        bags: of those whose store is still there.
        caller: the model of the runs.
        config: settings of the runs.
        asked: numbers of cells and draws.
        negative: classes without disease.
        progress: called after each patient.
    """
    called = {case.patient: case.called for case in cases if case.called and case.patient in bags}
    chosen = in_a_fixed_order(called)[: asked.patients]
    found: list[Trial] = []
    for done, patient in enumerate(chosen):
        progress("number of cells", done, len(chosen))
        film, rng = read_film(bags[patient], caller, config), _rng(patient, "number")
        for n in sorted(asked.cells):
            if n > film.n_cells:
                continue
            for _ in range(asked.draws if n < film.n_cells else 1):
                part = film.drawn(rng.permutation(film.n_cells)[:n])
                state = state_of_film(part, caller, config)
                called_now = called_class(state, caller.bundle.labels, negative)
                found.append(Trial(patient, str(n), state, called_now, called[patient]))
    progress("number of cells", len(chosen), len(chosen))
    return found


def dilution_trials(
    cases: Sequence[Case],
    question: Question,
    bags: Mapping[str, Path],
    caller: Caller,
    config: PredictionConfig,
    asked: DilutionPlan,
    negative: frozenset[str],
    progress: Progress,
) -> list[Trial]:
    """Cells of patients with disease among cells of patients without, by growing shares from 0 on.

    Each mixture takes the other cells from one patient without disease, another one each time, so
    that laboratory and stain are those of a real film. Draws are with repetition where a film has
    fewer cells than asked for.
    """
    known = [case for case in cases if case.reference is not None and case.patient in bags]
    ill = {c.patient for c in known if question.holds(c.reference or "")}
    healthy = in_a_fixed_order({c.patient for c in known} - ill)
    chosen = in_a_fixed_order(ill)[: asked.patients]
    if not healthy or not chosen:
        return []
    others = [read_film(bags[name], caller, config) for name in healthy[: asked.patients]]
    found: list[Trial] = []
    for done, patient in enumerate(chosen):
        progress("dilution", done, len(chosen))
        film, rng = read_film(bags[patient], caller, config), _rng(patient, "dilution")
        for share in (0.0, *sorted(asked.shares_percent)):
            own = max(1, round(asked.cells * share / 100)) if share else 0
            for draw in range(asked.draws):
                other = others[(done + draw) % len(others)]
                part = other.drawn(_draw(other.n_cells, asked.cells - own, rng))
                if own:
                    part = film.drawn(_draw(film.n_cells, own, rng)).mixed(part)
                state = state_of_film(part, caller, config)
                found.append(
                    Trial(patient, f"{share:g}", state,
                          called_class(state, caller.bundle.labels, negative))
                )  # fmt: skip
    progress("dilution", len(chosen), len(chosen))
    return found


def _draw(n: int, wanted: int, rng: np.random.Generator) -> np.ndarray:
    if wanted <= n:
        return rng.permutation(n)[:wanted]
    return rng.integers(0, n, wanted)


def _rng(patient: str, what: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{what} {patient}".encode(errors="replace")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
