"""CSV tables in and out: text, separators, quoting.

Owns the form of a table, not its meaning. Cells that a spreadsheet would take for a formula are
written with a leading ``'`` that reading takes away again; how files are written is files.py.
"""

from __future__ import annotations

import csv
import io
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millie.errors import ManifestError, MissingFileError
from millie.files import as_named, quote_formula, spelt_out, unquote_formula
from millie.readers.spelling import tidy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

MAX_AGE_YEARS = 130.0
MAX_TABLE_BYTES = 100_000_000

SPREADSHEETS = frozenset({".xlsx", ".xls", ".xlsm", ".ods", ".numbers", ".parquet"})
"""Extensions of tables that cannot be read; the message says to save them as CSV."""

_TOLD_SEPARATOR = re.compile(r"sep=([,;\t])\r?\n", re.IGNORECASE)  # what Excel writes and hides


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table.

    Attributes:
        line: its number in the file, from 1.
        cells: by name of the column.
    """

    line: int
    cells: Mapping[str, str]

    def fail(self, table: Path, message: str) -> ManifestError:
        """The error to raise about this row."""
        return ManifestError(f"{table}, line {self.line}: {message}")


def read_table(path: Path) -> tuple[list[str], list[Row]]:
    """Read a CSV in UTF-8, separated by comma, semicolon, tab, or what a first ``sep=`` names.

    Returns:
        The names of the columns in lower case, and the rows that are not blank.

    Raises:
        MissingFileError: there is no such file.
        ManifestError: no CSV, not UTF-8, a column twice, a row of another length, or no row.
    """
    text = _text(path)
    told = _TOLD_SEPARATOR.match(text)
    header_line = text[told.end() if told else 0 :].partition("\n")[0]
    separator = told[1] if told else max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    if told:
        next(reader)
    try:
        columns = [tidy(column).lower() for column in next(reader, [])]
        _check_twice(path, columns)
        rows = []
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(columns):
                raise ManifestError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells, expected {len(columns)} "
                    "as in the first line; quote cells that contain the separator"
                )
            values = (as_named(unquote_formula(cell)) for cell in cells)
            rows.append(Row(reader.line_num, dict(zip(columns, values, strict=True))))
    except csv.Error as error:
        raise ManifestError(
            f"{path}, line {reader.line_num}: not valid CSV ({error}); save it as CSV UTF-8"
        ) from error
    if not rows:
        raise ManifestError(f"{path}: no rows below the header; add one per patient or image")
    return columns, rows


def _text(path: Path) -> str:
    if path.suffix.lower() in SPREADSHEETS:
        raise ManifestError(
            f"{path}: Parquet and spreadsheets cannot be read; save the table as CSV UTF-8"
        )
    try:
        return _bytes(path).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise MissingFileError(f"manifest {path} does not exist; check the path") from error
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror}); give a CSV file"
        ) from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: not UTF-8 ({error.reason}); save it as CSV UTF-8") from error


def _bytes(path: Path) -> bytes:
    """Bytes of a regular file of limited size; of what says that it is empty nothing is read."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ManifestError(f"{path}: cannot be read: a folder or device; give a CSV file")
    if not status.st_size:
        return b""
    with path.open("rb") as stream:
        data = stream.read(MAX_TABLE_BYTES + 1)
    if len(data) > MAX_TABLE_BYTES:
        raise ManifestError(
            f"{path}: larger than {MAX_TABLE_BYTES / 1e6:.0f} MB; a table of images is smaller"
        )
    return data


def _check_twice(path: Path, columns: Sequence[str]) -> None:
    twice = sorted({column for column in columns if column and columns.count(column) > 1})
    if twice:
        raise ManifestError(f"{path}, line 1: column {', '.join(twice)} appears twice")


def age_of(text: str) -> float | None:
    """Years in a cell of a published table; None where it is empty or no age."""
    try:
        age = float(text)
    except ValueError:
        return None
    return age if 0 <= age <= MAX_AGE_YEARS else None


def table_bytes(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    """A CSV in UTF-8.

    It begins with a byte-order mark, as those of :func:`millie.files.write_csv`,
    and what UTF-8 cannot hold is spelt out as there.
    """
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\r\n")  # so that both are quoted in cells
    writer.writerow(columns)
    writer.writerows([quote_formula(spelt_out(cell)) for cell in row] for row in rows)
    return buffer.getvalue().encode("utf-8-sig")
