"""Reading of the CSV and JSON files that other stages wrote, with typed errors.

Text that a spreadsheet would run is quoted by :mod:`millie.files` and unquoted here, so the round
trip is exact. What stands in the files is known by the rooms that show them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from millie.errors import DataError, MissingFileError
from millie.files import as_named, unquote_formula


def read_csv(path: Path, required: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Yield the rows of a table as ``{column: text}``, formulas unquoted.

    Raises:
        MissingFileError: the file does not exist.
        DataError: a required column is missing, a row has too few cells, or it is no UTF-8 text.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; run the command that wrote it again")
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [as_named(unquote_formula(name)) for name in next(reader, [])]
            missing = [name for name in required if name not in header]
            if missing:
                raise DataError(
                    f"{path}: column '{missing[0]}' is missing; got {', '.join(header) or 'none'}"
                )
            for line, row in enumerate(reader, start=2):
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {line}: {len(row)} cells, expected {len(header)}; "
                        "the file was cut short or edited: run the command again"
                    )
                cells = [as_named(unquote_formula(cell)) for cell in row]
                yield dict(zip(header, cells, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is not a CSV table in UTF-8: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        MissingFileError: the file does not exist.
        DataError: it holds something else.
    """
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist; run the command that wrote it again")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON ({error}); run the command again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: got a {type(content).__name__}, expected an object")
    return content


def number(text: str, path: Path, column: str) -> float:
    """A number from a table's cell.

    Raises:
        DataError: the text is no number.
    """
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{path}, column '{column}': got '{text}', expected a number") from error
