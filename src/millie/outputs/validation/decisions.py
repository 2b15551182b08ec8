"""What people concluded in the review app, read back as a reference to compare calls with."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millie.errors import DataError
from millie.outputs.tables import read_csv, read_json
from millie.outputs.validation.plan import OTHER

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

_ANY_LEUKAEMIA = "leukaemia"
_COLUMNS = ("sample", "diagnosis", "holds")


@dataclass(frozen=True, slots=True)
class Decisions:
    """Conclusions and decisions about cells that hold.

    Attributes:
        diagnoses: by sample, in the review app's codes.
        cells: suggested and decided kind of each cell; empty where the file has none.
    """

    diagnoses: dict[str, str]
    cells: tuple[tuple[str, str], ...] = ()

    def reference(self, labels: Collection[str]) -> dict[str, str]:
        """Class of a model by sample, or ``other`` for a leukaemia without a lineage.

        Left out are conclusions that no answer of the model can agree with: another finding, a film
        that cannot be assessed, and classes that the model does not know.
        """
        words = {label: label for label in labels} | {_ANY_LEUKAEMIA: OTHER}
        return {
            sample: words[diagnosis]
            for sample, diagnosis in self.diagnoses.items()
            if diagnosis in words
        }

    def left_out(self, labels: Collection[str]) -> dict[str, int]:
        """How many conclusions of each kind :meth:`reference` leaves out."""
        known = {*labels, _ANY_LEUKAEMIA}
        return dict(Counter(d for d in self.diagnoses.values() if d not in known))


def read_decisions(path: Path) -> Decisions:
    """Read ``conclusions.csv`` or ``decisions.json`` of the review app.

    Raises:
        MissingFileError: there is no such file.
        DataError: it is something else, or one sample has two conclusions that hold.
    """
    if path.suffix.lower() != ".json":
        return Decisions(_holding(read_csv(path, _COLUMNS), path))
    content = read_json(path)
    try:
        diagnoses = _holding(content["conclusions"], path)
        cells = tuple(
            (str(row["suggestion"]), str(row["decision"]))
            for row in content["cells"]
            if row["holds"] and row["decision"]
        )
    except (KeyError, TypeError) as error:
        raise DataError(
            f"{path}: {type(error).__name__} at {error}; expected the file that the review app "
            "gives on its page Quality"
        ) from error
    return Decisions(diagnoses, cells)


def _holding(rows: Iterable[Mapping[str, Any]], path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows:
        if row["holds"] in {True, "1"}:
            sample = str(row["sample"])
            if sample in found:
                raise DataError(f"{path}: two conclusions of {sample} hold; download it again")
            found[sample] = str(row["diagnosis"])
    return found


def as_json(rows: Iterable[Mapping[str, Any]], remarks: Iterable[str]) -> str:
    """Figures and remarks as a document."""
    content = {"schema": 1, "figures": list(rows), "remarks": list(remarks)}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
