"""Whether a submitted file is an image that millie reads, by its content, and what it is called.

The readers decide. A photograph's header and structure are checked here and its pixels when cells
are looked for; a whole slide is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from millie.config import ReadingConfig
from millie.errors import ImageError
from millie.readers.apart import HELPER
from millie.readers.decoding import SIGNATURES, decoder_boundary, open_checked
from millie.readers.dicom import is_dicom, is_whole_slide
from millie.readers.fields import is_slide
from millie.readers.images import EXTENSIONS, OTHER_PICTURES, SLIDE_EXTENSIONS, read_bytes
from millie.readers.slides import open_slide
from millie.review.intake.archives import is_archive, is_other_archive
from millie.types import ImageSource

if TYPE_CHECKING:
    from collections.abc import Mapping

_HEAD_BYTES = 132
_ENDINGS: Mapping[str, str] = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp"}
_LIMITS = ReadingConfig()


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file turned out to be.

    Attributes:
        ending: by which the readers know it again, with its dot.
    """

    ending: str


def check(path: Path, name: str) -> Kind | None:
    """Find out what a file is.

    Args:
        path: the file, under any name.
        name: as the sender named it, for messages.

    Returns:
        None: a file that is no image and does not claim to be one, which may be left aside.

    Raises:
        ImageError: it claims to be an image, and is none that can be read; the message says why.
        MissingPackageError: it needs an extra that is not installed.
    """
    shown, suffix = PurePosixPath(name).name, PurePosixPath(name).suffix.lower()
    with path.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    if is_archive(head) or is_other_archive(head):
        raise ImageError(
            f"{shown}: an archive among images; send one zip alone, or the images themselves"
        )
    if is_dicom(path):
        return _dicom(path, shown)
    if suffix in SLIDE_EXTENSIONS:
        return _slide(path, shown, suffix)
    kind = next((kind for start, kind in SIGNATURES if head.startswith(start)), None)
    if kind is None and suffix not in EXTENSIONS:
        if suffix in OTHER_PICTURES:
            raise ImageError(
                f"{shown}: the format {suffix} cannot be read; export it as JPEG, PNG, TIFF or BMP"
            )
        return None
    named = path.with_name(f"{path.name}{_ENDINGS.get(kind or '', '.img')}")
    path.rename(named)  # readers tell a tiled slide by its ending too
    try:
        return _picture(named, shown)
    finally:
        named.rename(path)


def _picture(path: Path, shown: str) -> Kind:
    """A photograph, or a TIFF that is a whole slide."""
    if is_slide(ImageSource(path, shown), _LIMITS):
        return _slide(path, shown, path.suffix)
    data = read_bytes(path, shown, _LIMITS)
    with decoder_boundary(shown):
        open_checked(data, shown, _LIMITS)
    return Kind(path.suffix)


def _slide(path: Path, shown: str, suffix: str) -> Kind:
    with open_slide(path, shown):
        return Kind(suffix)


def _dicom(path: Path, shown: str) -> Kind:
    if is_whole_slide(path, shown):
        return _slide(path, shown, ".dcm")
    HELPER.read(ImageSource(path, shown), _LIMITS)
    return Kind(".dcm")
