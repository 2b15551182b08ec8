"""A folder of bags: which patients it has, under which configuration, and whether all is whole.

``<store>/store.json`` describes it, ``<store>/<safe id>.h5`` is a patient, ``<store>/embeddings``
is a cache that can be deleted at any time. This module owns the folder; the inside of a bag belongs
to :mod:`millie.bags.bagfile` and :mod:`millie.bags.bag_writer`, whose names are offered here too.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millie.bags.bag_writer import CellCrop, write_bag
from millie.bags.bagfile import BagMeta, BagReader
from millie.bags.embeddings import FOLDER, embeddings_path, read_embeddings, write_embeddings
from millie.bags.files import check_seal, read_errors, write_text
from millie.config import Config
from millie.errors import DataError, MissingFileError, StoreError
from millie.files import is_visible, remove_stale, safe_id
from millie.types import Problem

__all__ = [
    "BagMeta", "BagReader", "BagSummary", "CellCrop", "Store", "StoreDescription",
    "embeddings_path", "read_embeddings", "safe_id", "write_bag", "write_embeddings",
]  # fmt: skip

SCHEMA = 1
DESCRIPTION = "store.json"


@dataclass(frozen=True, slots=True)
class StoreDescription:
    """What a store is.

    Attributes:
        name: of the cohort.
        config: under which the bags were cut.
        labels: diagnoses that occur, sorted.
        problems: what was wrong with the cohort's files and patients.
        encoder: where the store holds vectors instead of pictures, the name of what made them.
    """

    name: str
    config: Config
    labels: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    encoder: str = ""


@dataclass(frozen=True, slots=True)
class BagSummary:
    """One line of a store's index; ``digest`` is that of the configuration that cut the bag."""

    patient: str
    label: str | None
    n_cells: int
    site: str
    stain: str
    scanner: str
    split: str
    digest: str
    path: Path


class Store:
    """A folder of bags; creating the object touches nothing.

    Args:
        root: the folder; it need not exist before the first bag is written.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path_of(self, patient_id: str) -> Path:
        """Where the bag of a patient lies or would lie."""
        return self.root / f"{safe_id(patient_id)}.h5"

    def files(self) -> list[Path]:
        """Files that should be bags, sorted; what an operating system left is none."""
        return _visible(self.root, "*.h5")

    def scan(self) -> tuple[list[BagSummary], list[Problem]]:
        """All bags in the order of patient ids, and what cannot be read of the rest.

        Only heads are read, and compared with their digests: a changed label is damage, not another
        class. Changed pixels are found when a bag is opened, or by :meth:`verify`.

        Raises:
            MissingFileError: the folder does not exist.
        """
        if not self.root.is_dir():
            raise MissingFileError(
                f"no bag store at {self.root}: give the folder that `millie segment` wrote"
            )
        found: list[BagSummary] = []
        problems: list[Problem] = []
        for path in self.files():
            try:
                found.append(_summary(path))
            except DataError as error:
                problems.append(_problem("", path, error))
        return sorted(found, key=lambda s: s.patient), problems

    def index(self) -> list[BagSummary]:
        """All bags in the order of patient ids.

        Raises:
            MissingFileError: the folder does not exist.
            StoreError: a bag cannot be read; use :meth:`scan` to go on without it.
        """
        found, problems = self.scan()
        if problems:
            raise StoreError(problems[0].message)
        return found

    def bags(self) -> list[Path]:
        """Files of all bags in the order of patient ids; raises as :meth:`index`."""
        return [summary.path for summary in self.index()]

    def is_done(self, patient_id: str, digest: str) -> bool:
        """Whether the patient's bag is there, whole to the last bit, and cut under ``digest``."""
        try:
            with BagReader(self.path_of(patient_id)) as bag:
                return bag.meta.digest == digest and bag.patient_id == patient_id
        except (MissingFileError, StoreError):
            return False

    def discard(self, patient_id: str, digest: str) -> None:
        """Remove the patient's bag if it was not cut under ``digest``, or cannot be read."""
        path = self.path_of(patient_id)
        try:
            with BagReader(path, verify=False) as bag:
                keep = bag.meta.digest == digest or bag.patient_id != patient_id
        except MissingFileError:
            return
        except StoreError:
            keep = False
        if not keep:
            path.unlink(missing_ok=True)

    def clean(self) -> list[Path]:
        """Remove what killed processes left behind; returns the files removed."""
        folders = [self.root, *(f for f in (self.root / FOLDER).glob("*") if f.is_dir())]
        return [path for folder in folders for path in remove_stale(folder)]

    @property
    def description(self) -> StoreDescription:
        """What the store is, from ``store.json``.

        Raises:
            MissingFileError: there is none: this is no store.
            StoreError: it was changed or is of another schema.
        """
        path = self.root / DESCRIPTION
        if not path.is_file():
            raise MissingFileError(f"{self.root} is not a bag store: it has no {DESCRIPTION}")
        with read_errors(path):
            text = path.read_text(encoding="utf-8")
            data = json.loads(text)
            if text != _description_text(data["store"]):
                raise StoreError(
                    f"{path} has changed since it was written: run `millie segment` again"
                )
            body = data["store"]
            if body["schema"] != SCHEMA:
                raise StoreError(
                    f"{path} has schema {body['schema']}, this version reads {SCHEMA}: segment "
                    "again, or use the millie version that wrote it"
                )
            return StoreDescription(
                name=body["name"],
                config=Config.model_validate(body["config"]),
                labels=tuple(body["labels"]),
                problems=tuple(Problem(**p) for p in body["problems"]),
                encoder=body.get("encoder", ""),
            )

    @property
    def encoder(self) -> str:
        """What made the vectors of a store of vectors; empty: it holds pictures, or no bag yet."""
        return self.description.encoder if (self.root / DESCRIPTION).is_file() else ""

    def describe(
        self,
        name: str,
        config: Config,
        labels: Sequence[str] = (),
        problems: Sequence[Problem] = (),
        encoder: str = "",
    ) -> None:
        """Write ``store.json`` atomically; the arguments are those of :class:`StoreDescription`.

        Raises:
            StoreError: it cannot be written.
        """
        body = {
            "schema": SCHEMA,
            "name": name,
            "config": config.model_dump(mode="json"),
            "labels": list(labels),
            "problems": [dataclasses.asdict(p) for p in problems],
        }
        if encoder:
            body["encoder"] = encoder
        write_text(self.root / DESCRIPTION, _description_text(body))

    def verify(self) -> list[Problem]:
        """Read every file of the store and name each that is not what was written.

        Raises:
            MissingFileError: the folder does not exist.
        """
        _, problems = self.scan()
        unreadable = {problem.source for problem in problems}
        crops, unknown = self._crops()
        for path in self.files():
            if path.name not in unreadable:
                problems += self._check_bag(path, crops)
        for path in _visible(self.root / FOLDER, "*/*.h5"):
            try:
                check_seal(path)
            except DataError as error:
                problems.append(_problem("", path, error))
        return problems + unknown

    def _crops(self) -> tuple[tuple[int, float] | None, list[Problem]]:
        """Side of the crops in px and in um that ``store.json`` states, or why it states none.

        Vectors have none.
        """
        try:
            stated = self.description
        except (DataError, MissingFileError) as error:
            return None, [_problem("", self.root / DESCRIPTION, error)]
        crops = stated.config.crops
        return (None if stated.encoder else (crops.size_px, crops.size_um)), []

    def _check_bag(self, path: Path, crops: tuple[int, float] | None) -> list[Problem]:
        patient = ""
        try:
            check_seal(path)
            with BagReader(path, verify=False) as bag:
                patient, own = bag.patient_id, (bag.meta.size_px, bag.meta.size_um)
            if path != self.path_of(patient):
                raise StoreError(
                    f"{path} holds patient '{patient}': rename it to {self.path_of(patient).name}"
                )
            if crops not in {None, own}:
                raise StoreError(
                    f"{path} holds crops of {own} px and um, and {DESCRIPTION} states {crops}: run "
                    "`millie segment` again, or remove it"
                )
        except DataError as error:
            return [_problem(patient, path, error)]
        return []


def _visible(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if is_visible(path.name))


def _summary(path: Path) -> BagSummary:
    with BagReader(path, verify=False) as bag:
        patient = bag.patient
        return BagSummary(
            patient=patient.id,
            label=patient.label,
            n_cells=bag.n_cells,
            site=patient.site,
            stain=patient.stain,
            scanner=patient.scanner,
            split=patient.split,
            digest=bag.meta.digest,
            path=path,
        )


def _problem(patient: str, path: Path, error: Exception) -> Problem:
    return Problem(patient, path.name, type(error).__name__, str(error), fatal=True)


def _description_text(body: dict[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, indent=2)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return json.dumps({"sha256": digest, "store": body}, sort_keys=True, indent=2) + "\n"
