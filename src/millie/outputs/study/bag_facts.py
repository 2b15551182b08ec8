"""What the bags of a study say about its patients, read once and used by several sections.

Owns the reading of heads and tables of bags; no picture is decoded here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from millie.bags.store import BagReader, Store
from millie.errors import DataError, MissingError
from millie.types import Problem


@dataclass(frozen=True, slots=True)
class BagFacts:
    """One patient's bag.

    Attributes:
        patient: pseudonym.
        label: diagnosis, or None.
        age: in years, or None; also ``sex``, ``site``, ``stain``, ``scanner``, empty if unknown.
        digests: SHA-256 of each image file that gave cells.
        n_cells: cells in the bag; also ``n_smudge`` and ``n_no_outline`` of them.
        problems: files of the patient that could not be used, and notes.
        sha256: of the whole bag.
    """

    patient: str
    label: str | None
    age: float | None
    sex: str
    site: str
    stain: str
    scanner: str
    digests: tuple[str, ...]
    n_cells: int
    n_smudge: int
    n_no_outline: int
    problems: tuple[Problem, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """A bag store.

    Attributes:
        cohort: its name, or empty.
        bags: in the order of patient ids.
        problems: what was wrong with the cohort's files and with unreadable bags.
    """

    cohort: str
    bags: tuple[BagFacts, ...]
    problems: tuple[Problem, ...]

    def of(self, patients: Iterable[str]) -> tuple[BagFacts, ...]:
        """The bags of these patients."""
        wanted = set(patients)
        return tuple(bag for bag in self.bags if bag.patient in wanted)


def read_store(store: Store) -> StoreFacts:
    """Heads and tables of all bags; what cannot be read becomes a problem."""
    found, problems = store.scan()
    bags = []
    for summary in found:
        try:
            with BagReader(summary.path, verify=False) as bag:
                bags.append(_facts(bag))
        except DataError as error:
            name = type(error).__name__
            problems.append(Problem(summary.patient, "", name, str(error), fatal=True))
    try:
        description = store.description
    except (DataError, MissingError):
        return StoreFacts("", tuple(bags), tuple(problems))
    return StoreFacts(description.name, tuple(bags), (*description.problems, *problems))


def _facts(bag: BagReader) -> BagFacts:
    cells, patient = bag.cells, bag.patient
    return BagFacts(
        patient.id,
        patient.label,
        patient.age,
        patient.sex,
        patient.site,
        patient.stain,
        patient.scanner,
        tuple(source.sha256 for source in bag.sources),
        bag.n_cells,
        sum(cell.smudge for cell in cells),
        sum(cell.quality == 0 for cell in cells),
        bag.meta.problems,
        bag.sha256,
    )
