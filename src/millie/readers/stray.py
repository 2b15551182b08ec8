"""Files that lie beside a patient's images and are none: a readme, a table, a document.

Owns how such a file is told from an image where both were named (``cohort/*``): by its ending,
else by its first bytes. An image without an ending stays one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millie.files import is_litter
from millie.readers.content import note
from millie.readers.dicom import is_dicom, is_directory
from millie.readers.images import EXTENSIONS, OTHER_PICTURES, other_files
from millie.readers.spelling import exists
from millie.types import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from millie.types import Problem

_SIGNATURES = (
    b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"GIF8", b"RIFF",
    b"\0\0\0\x0cjP", b"\xff\x4f\xff\x51",
)  # fmt: skip
_BITMAP = b"BM"


_MAY_HOLD_IMAGES = {
    "document": (frozenset({".pdf", ".doc", ".docx", ".ppt", ".pptx", ".odt", ".odp", ".rtf"}),
                 "export the pictures in it as files of their own"),
    "video": (frozenset({".mp4", ".mov", ".avi", ".mkv", ".wmv", ".m4v", ".mpg", ".webm"}),
              "save still images of it, one a field"),
    "archive": (frozenset({".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz"}),
                "unpack it"),
}  # fmt: skip
"""By kind: endings of files that are no images and may hold some, and what to do with them."""


def left_aside(patient: str, folder: Path) -> list[Problem]:
    """A note for each kind of file below a folder that may hold images and is not read.

    Args:
        patient: whose folder; empty: nobody's.
        folder: is searched.
    """
    notes = []
    others = other_files(folder)
    for kind, (endings, remedy) in _MAY_HOLD_IMAGES.items():
        found = [path for path in others if path.suffix.lower() in endings]
        if found:
            n = len(found) - 1
            more = f" ({n} more in {folder.name})" if n else ""
            text = f"a {kind} is not read{more}: if it holds images, {remedy}"
            name = found[0].relative_to(folder).as_posix()
            notes.append(note(patient, name, text.replace("a archive", "an archive"),
                              Finding.STRAY))  # fmt: skip
    return notes


def without_strays(paths: Sequence[Path]) -> tuple[list[Path], list[Problem]]:
    """Take out named files that are no images, if anything is left then.

    Returns:
        What stays, and a note for each file taken out; what an operating system leaves behind
        goes without one.
    """
    stray = [path for path in paths if _is_stray(path)]
    kept = [path for path in paths if path not in stray]
    if not kept:
        return list(paths), []
    return kept, [_stray_note(path) for path in stray if not is_litter(path.name)]


def _stray_note(path: Path) -> Problem:
    text = "no image: left aside. A manifest is given alone, with columns patient, label, path"
    return note("", str(path), text, Finding.STRAY)


def _is_stray(path: Path) -> bool:
    if is_litter(path.name):
        return True
    if not exists(path) or not path.is_file() or path.suffix.lower() in EXTENSIONS | OTHER_PICTURES:
        return False
    if is_dicom(path) or is_directory(path):
        return False
    try:
        if not path.stat().st_size:  # a kernel's pseudo-file says so, and may never end
            return True
        with path.open("rb") as stream:
            start = stream.read(64)
    except OSError:
        return False
    # "BM" also begins a text; a bitmap has zero bytes in its header.
    return not (start.startswith(_SIGNATURES) or (start.startswith(_BITMAP) and b"\0" in start))
