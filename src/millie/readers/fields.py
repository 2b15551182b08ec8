"""From an image source to its fields: one of a photograph, many of a whole slide.

Owns which reader a file goes to, by its content and ending; the readers themselves are images.py,
slides.py and dicom.py.
"""

from __future__ import annotations

import mmap
from contextlib import suppress
from typing import TYPE_CHECKING

from millie.readers.apart import HELPER
from millie.readers.dicom import is_dicom, is_whole_slide
from millie.readers.images import SLIDE_EXTENSIONS, read_image
from millie.readers.slides import field_at, fields_of
from millie.readers.spelling import exists
from millie.readers.tiff import is_tiff, tiled_pixels
from millie.types import ImageKind, ImageSource, PixelSize

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from millie.config import ReadingConfig
    from millie.types import Field, SourceRecord


_TIFF = frozenset({".tif", ".tiff"})


def read_fields(
    source: ImageSource, config: ReadingConfig, assumed: PixelSize | None = None
) -> Generator[Field, None, None]:
    """The fields of one image source, decoded one after another.

    Args:
        source: an image or a whole slide.
        config: limits.
        assumed: scale of slides that state none.

    Raises:
        MissingFileError: the file does not exist.
        MissingPackageError: it needs an extra that is not installed.
        DataError: it cannot be used; fields of a damaged slide that came before are good.
    """
    if is_slide(source, config):
        yield from fields_of(source, config, assumed)
    elif is_dicom(source.path):
        yield HELPER.read(source, config)
    else:
        yield read_image(source, config)


def read_again(record: SourceRecord, path: Path, config: ReadingConfig) -> Field:
    """The field behind a record of a bag; raises as :func:`read_fields`.

    Args:
        record: from the bag.
        path: where its file lies now.
        config: limits.
    """
    size = PixelSize(record.um_px) if record.um_px else None
    source = ImageSource(path, record.name, pixel_size=size)
    if record.place is not None:
        return field_at(source, record.place)
    return next(read_fields(source, config))


def is_slide(source: ImageSource, config: ReadingConfig) -> bool:
    """Whether a file is read as a whole slide.

    It is by its ending, as a DICOM whole slide, as a tiled TIFF of more pixels than a field may
    have, or of any size where the cohort says that it is a slide.

    Raises:
        MissingPackageError: a DICOM file, and the extra is not installed.
        ImageError: a DICOM file that shows the label of a slide, or cannot be read.
    """
    path = source.path
    if not (exists(path) and path.is_file()):
        return False
    if path.suffix.lower() in SLIDE_EXTENSIONS:
        return True
    if is_dicom(path):
        return is_whole_slide(path, source.name)
    n_pixels = _tiled_pixels(path) if path.suffix.lower() in _TIFF else 0
    least = 0 if source.kind is ImageKind.SLIDE else config.max_field_megapixels * 1e6
    return n_pixels > least


def _tiled_pixels(path: Path) -> int:
    """Pixels of a tiled TIFF; 0 for any other file."""
    with suppress(OSError), path.open("rb") as stream:
        if is_tiff(stream.read(4)):
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return tiled_pixels(data)
    return 0
