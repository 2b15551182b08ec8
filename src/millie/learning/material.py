"""From a bag store to what training reads: cells as embeddings or crops, labels, flags.

Owns the choice between cached embeddings (frozen encoder) and crops (end to end), and names the
patients that cannot take part. Features are computed by :mod:`millie.inference.embed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from millie.bags.copies import shared_between
from millie.bags.store import BagReader, Store
from millie.errors import ConfigError, TrainingError
from millie.inference.embed import embed_bag
from millie.inference.runtime import feature_runtime
from millie.learning.ensemble import Material, check_enough
from millie.learning.sampling import EmbeddedCells, StoredCells
from millie.learning.train import Progress, silent
from millie.models.encoders import build_encoder
from millie.models.external import name_digest
from millie.models.weights import weights_digest
from millie.types import Cell, Finding, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from millie.bags.loading import Recolour
    from millie.config import Config
    from millie.models.encoder import Encoder


TEST_SPLIT = "test"
"""Patients of this split are never trained on and never cross-validated."""


@dataclass(frozen=True, slots=True, eq=False)
class Participants:
    """Who can take part.

    Attributes:
        labels: diagnosis by patient; each has at least one cell.
        problems: patients left out, and why.
    """

    labels: Mapping[str, str]
    problems: tuple[Problem, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Diagnoses, sorted: the order of logits and probabilities."""
        return tuple(sorted(set(self.labels.values())))


def participants(store: Store) -> Participants:
    """Patients with a label and cells that the manifest does not keep for a test.

    Raises:
        MissingFileError: no store.
        StoreError: a bag cannot be read.
        TrainingError: fewer than two classes, fewer than two patients of one, or a cell that lies
            under two diagnoses.
    """
    labels: dict[str, str] = {}
    problems = []
    for bag in store.index():
        if bag.split.lower() == TEST_SPLIT:
            note = "split 'test': not used for training; call it with `millie predict`"
            problems.append(Problem(bag.patient, "", Finding.TEST_SPLIT, note, note=True))
        elif not bag.label:
            problems.append(_left_out(bag.patient, "no diagnosis: not used for training"))
        elif bag.n_cells == 0:
            problems.append(_left_out(bag.patient, "no cells found: not used for training"))
        else:
            labels[bag.patient] = bag.label
    problems += _shared_cells(store, labels)
    check_enough(labels)
    return Participants(labels, tuple(problems))


def _shared_cells(store: Store, patients: Iterable[str]) -> list[Problem]:
    """Notes on cells that lie under two patients of one diagnosis; of two diagnoses is an error."""
    shared = shared_between([store.path_of(patient) for patient in sorted(patients)])
    told = [problem for pair in shared for problem in pair.problems()]
    wrong = [problem for problem in told if not problem.note]
    if wrong:
        more = f" ({len(wrong) // 2} such pairs of patients)" if len(wrong) > 2 else ""
        raise TrainingError(f"{store.root}: patient {wrong[0].patient}: {wrong[0].message}{more}")
    return told


class Opener:
    """Cells of patients as the configuration wants them; the encoder is built once.

    Args:
        store: the bags.
        config: ``model``, ``training.mode``, ``training.seed``, ``prediction``.

    Attributes:
        digest: SHA-256 (hex) of the encoder's weights before training.

    Raises:
        MissingWeightsError: pretrained weights cannot be had.
        ConfigError: the store holds vectors, and the configuration needs pictures.
    """

    def __init__(self, store: Store, config: Config) -> None:
        self._store, self._config = store, config
        self._imported = store.encoder
        if self._imported:
            _check_imported(store, config)
            self.digest = name_digest(self._imported)
            return
        encoder = build_encoder(config.model, seed=config.training.seed)
        self.digest = weights_digest(encoder)
        self._dim = encoder.dim
        self._types = encoder.types if config.model.pretrained else None
        frozen = config.training.mode == "frozen"
        self._runtime = feature_runtime(encoder, config.prediction) if frozen else None

    def open(
        self,
        patients: Sequence[str],
        progress: Progress = silent,
        colours: Mapping[str, tuple[str, Recolour]] | None = None,
    ) -> Material:
        """Crops, or with a frozen encoder all embeddings, computed or read from the store's cache.

        Embeddings are held in memory: float32, 5 kB a cell of 1280 features.

        Args:
            patients: whose cells.
            progress: called after each patient.
            colours: by patient, a change of colours with its digest.

        Raises:
            StoreError: a bag is damaged.
        """
        if self._imported:
            imported = EmbeddedCells({p: _vectors(self._store, p) for p in patients})
            return Material(imported, imported.dim, encoder=self._imported)
        if self._runtime is None:
            source = StoredCells(self._store, self._config.model.background, colours=colours)
            return Material(source, self._dim, self._new_encoder, encoder_sha256=self.digest)
        features = {}
        for done, patient in enumerate(patients, start=1):
            with BagReader(self._store.path_of(patient)) as reader:
                features[patient] = embed_bag(
                    reader,
                    self._runtime,
                    self.digest,
                    batch_size=self._config.prediction.batch_size,
                    background=self._config.model.background,
                    colours=(colours or {}).get(patient),
                )
            progress("embed", done, len(patients))
        return Material(EmbeddedCells(features), self._dim, types=self._types)

    def _new_encoder(self, seed: int) -> Encoder:
        return build_encoder(self._config.model, seed=seed)


def open_material(
    store: Store, patients: Sequence[str], config: Config, progress: Progress = silent
) -> tuple[Material, str]:
    """Cells of patients as the configuration wants them.

    Returns:
        The material, and the SHA-256 (hex) of the encoder's weights before training.

    Raises:
        MissingWeightsError: pretrained weights cannot be had.
        StoreError: a bag is damaged.
    """
    opener = Opener(store, config)
    return opener.open(patients, progress), opener.digest


def _check_imported(store: Store, config: Config) -> None:
    """Refuse what cannot be done with vectors alone."""
    wanted = {
        "training.mode": (config.training.mode, "frozen"),
        "training.colour_transfer": (config.training.colour_transfer, False),
    }
    for name, (got, possible) in wanted.items():
        if got != possible:
            raise ConfigError(
                f"{store.root} holds vectors and no pictures: {name} must be {possible} for it"
            )


def _vectors(store: Store, patient: str) -> NDArray[np.float32]:
    with BagReader(store.path_of(patient)) as reader:
        return reader.vectors()


def cells_of(store: Store, patient: str) -> list[Cell]:
    """The table of a patient's cells."""
    with BagReader(store.path_of(patient), verify=False) as reader:
        return reader.cells


def _left_out(patient: str, message: str) -> Problem:
    return Problem(patient, "", Finding.NOT_TRAINED, message)
