"""What ``detect`` writes: a row a cell, and pictures of what was found.

Owns the columns and the names of the pictures. Prediction runs have tables of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millie.errors import ConfigError
from millie.files import replacing, safe_id, write_csv
from millie.outputs.gallery import jpeg_bytes
from millie.outputs.overlays import draw_outlines

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from millie.types import Cell, CellRegion

COLUMNS = (
    "source", "x_px", "y_px", "left_px", "top_px", "width_px", "height_px", "area_px",
)  # fmt: skip


def check_table(path: Path) -> None:
    """Refuse to write the table over a file that is none.

    Raises:
        ConfigError: and what to do.
    """
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as stream:
        start = stream.read(200).decode("utf-8-sig", "replace")
    if not start.startswith(",".join(COLUMNS)):
        raise ConfigError(
            f"{path} is not a table of `millie detect` and is left as it is: name another file for "
            "the table, or move that one"
        )


def write_detections(path: Path, found: Iterable[tuple[str, Cell]]) -> Path:
    """Write the table.

    Args:
        path: the CSV.
        found: name of the image as the user typed it, and a cell; pixels of the full-resolution
            file.
    """
    return write_csv(path, COLUMNS, ([name, *_numbers(cell)] for name, cell in found))


def write_detection_overlay(
    folder: Path,
    name: str,
    image: NDArray[np.uint8],
    regions: Sequence[CellRegion],
    um_px: float | None,
) -> Path:
    """Draw the outlines of cells and nuclei on the image and save it as JPEG.

    Args:
        folder: where the picture goes; made if missing.
        name: of the image; the picture is called after it.
        image: uint8 RGB (H, W, 3).
        regions: cells in pixels of ``image``.
        um_px: for the scale bar; None: no bar.
    """
    path = folder / f"{safe_id(name)}.jpg"
    with replacing(path) as stream:
        stream.write(jpeg_bytes(draw_outlines(image, regions, um_px)))
    return path


def _numbers(cell: Cell) -> list[int | float]:
    return [
        round(cell.x_px, 2), round(cell.y_px, 2), cell.left_px, cell.top_px,
        cell.width_px, cell.height_px, round(cell.area_px, 1),
    ]  # fmt: skip
