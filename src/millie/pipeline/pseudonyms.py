"""Pseudonyms: what outputs show instead of the names of patients, folders and files.

Owns the table that links the two, and the renaming of a cohort before anything is made of it: what
comes later never learns a name, but for the paths that images are read from. Pseudonyms are drawn
at random; a digest of a name could be found again by trying names.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from millie.errors import BusyError, ConfigError
from millie.files import held, write_csv
from millie.readers.table import read_table
from millie.types import Cohort, Patient, Problem

COLUMNS = ("kind", "pseudonym", "patient", "name")
"""Of the table: ``patient``, ``image`` or ``problem``; and whose image or message it is."""

COHORT = "pseudonyms"
"""Name of a renamed cohort: its own is that of a file."""

_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that is read for another
_LENGTH = 8  # 8e11 pseudonyms; one that is taken is drawn again
_OF_SLIDE = r"(_at_\d+_\d+\.[0-9a-f]+)?"  # a picture of a field of a whole slide
_OURS = re.compile(rf"(patient|image)-[{_LETTERS}]{{{_LENGTH}}}{_OF_SLIDE}")
_OWNER_ONLY = 0o600
_WAIT_S = 30.0  # parts of one cohort (--shard) begin together, each holds the table for a moment


def pseudonymised(cohort: Cohort, table: Path, outputs: Iterable[Path]) -> Cohort:
    """A cohort in which patients and images carry pseudonyms; the table is on disk before it.

    Messages about the cohort, which may quote any name, are moved to the table.

    Args:
        cohort: as it was read; the patient without a name, of ``detect``, stays.
        table: CSV, readable by its owner alone; names found in it keep their pseudonyms.
        outputs: files and folders of the results.

    Raises:
        ConfigError: the table would lie among the results, or another file is in its place.
        ManifestError: it cannot be read.
        BusyError: another run holds it, for half a minute.
        OSError: it cannot be written.
    """
    _check_place(table, outputs)
    with _alone(table):
        names = _Names(_read(table))
        renamed = names.cohort(cohort)
        rows = ((kind, new, *old) for (kind, *old), new in names.known.items())
        write_csv(table, COLUMNS, rows, mode=_OWNER_ONLY)
    return renamed


def check_no_names(folder: Path, files: Iterable[Path]) -> None:
    """Refuse to add to results that were made without pseudonyms.

    Args:
        folder: of the results.
        files: in it, which are called after patients or images.

    Raises:
        ConfigError: one of them is not called by a pseudonym.
    """
    if not all(_OURS.fullmatch(path.stem) for path in files):
        raise ConfigError(
            f"{folder} holds results that were made without pseudonyms, so names would stay in it: "
            "name another folder"
        )


class _Names:
    """Names and their pseudonyms: ``(kind, patient, name)`` to the pseudonym."""

    def __init__(self, known: Mapping[tuple[str, str, str], str]) -> None:
        self.known = dict(known)
        self._taken = set(known.values())

    def of(self, kind: str, patient: str, name: str) -> str:
        """The pseudonym of a name, drawn now if it has none."""
        key = (kind, patient, name)
        while key not in self.known:
            drawn = f"{kind}-{''.join(secrets.choice(_LETTERS) for _ in range(_LENGTH))}"
            if drawn not in self._taken:
                self._taken.add(drawn)
                self.known[key] = drawn
        return self.known[key]

    def cohort(self, cohort: Cohort) -> Cohort:
        images = {
            (patient.id, image.name): self.of("image", patient.id, image.name)
            for patient in cohort.patients
            for image in patient.images
        }
        return Cohort(
            COHORT,
            tuple(self._patient(patient, images) for patient in cohort.patients),
            tuple(self._problem(problem, images) for problem in cohort.problems),
        )

    def _patient(self, patient: Patient, images: Mapping[tuple[str, str], str]) -> Patient:
        own = (replace(i, name=images[patient.id, i.name]) for i in patient.images)
        return replace(patient, id=self._id(patient.id), images=tuple(own))

    def _problem(self, problem: Problem, images: Mapping[tuple[str, str], str]) -> Problem:
        text = ": ".join(filter(None, (problem.source, problem.message)))
        number = self.of("problem", problem.patient, text)
        return replace(
            problem,
            patient=self._id(problem.patient),
            source=images.get((problem.patient, problem.source), ""),
            message=f"{problem.error}: see {number} in the table of pseudonyms, for its words may "
            "name files",
        )

    def _id(self, patient: str) -> str:
        return self.of("patient", patient, patient) if patient else ""


def _check_place(table: Path, outputs: Iterable[Path]) -> None:
    for output in outputs:
        if table.resolve().is_relative_to(output.resolve()):
            raise ConfigError(
                f"the table of pseudonyms {table} lies in {output}, with the results that it must "
                "be kept apart from: name another place for it"
            )


@contextmanager
def _alone(table: Path) -> Iterator[None]:
    """Keep other runs out of the table, after waiting for one that is in it."""
    until = time.monotonic() + _WAIT_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held(table.with_name(f".{table.name}.lock"), table))
                break
            except BusyError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)
        yield


def _read(table: Path) -> dict[tuple[str, str, str], str]:
    if not table.exists():
        return {}
    columns, rows = read_table(table)
    if tuple(columns) != COLUMNS:
        raise ConfigError(
            f"{table} is no table of pseudonyms ({', '.join(COLUMNS)}) and is left as it is: name "
            "another file"
        )
    return {
        (r.cells["kind"], r.cells["patient"], r.cells["name"]): r.cells["pseudonym"] for r in rows
    }
