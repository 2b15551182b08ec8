"""Image files: found in folders, read into fields, told apart as cells or fields of view.

Owns what touches the disk for one image: finding, limits on the file, one read for digest and
pixels. Conversion of bytes is decoding.py, the scale in a file's metadata metadata.py.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from millie.errors import ImageError, ImageTooLargeError, ManifestError, MissingFileError
from millie.files import is_visible, resolved
from millie.readers import heif
from millie.readers.apart import HELPER
from millie.readers.content import sha256_of
from millie.readers.decoding import decoder_boundary, open_checked, to_rgb
from millie.readers.dicom import is_dicom
from millie.readers.heif import is_heif
from millie.readers.limits import ORDINARY_BYTES, is_ordinary
from millie.readers.metadata import StatedScale, stated_scale
from millie.types import Field, ImageKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from millie.config import ReadingConfig
    from millie.types import ImageSource, PixelSize

SLIDE_EXTENSIONS = frozenset({".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".svslide", ".czi"})
"""Extensions of whole slides; a tiled TIFF or a DICOM file may be one too."""

EXTENSIONS = SLIDE_EXTENSIONS | heif.EXTENSIONS | frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".dcm",
})  # fmt: skip
"""Extensions by which images are found in a folder; what a file is, its content decides."""

OTHER_PICTURES = frozenset({
    ".webp", ".gif", ".avif", ".jp2", ".j2k", ".jxl", ".vsi", ".lif", ".nd2",
    ".raw", ".dng", ".nef", ".cr2", ".arw", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip
"""Extensions of images that cannot be read: one in a patient's folder is reported, not ignored."""

_LONGEST_SHOWN = 200  # characters of a path

RESULT, DRAWN = "predictions.json", "overlays"
"""Mark an output of ``millie predict``: its overlays are not images of a patient."""


def read_image(source: ImageSource, config: ReadingConfig) -> Field:
    """Read and decode one image: here, or under limits in another process if it is large or odd.

    Args:
        source: the file; its pixel size, if known, goes before the file's metadata.
        config: limits, checked on the file's size and header before anything is decoded.

    Raises:
        MissingFileError: the file does not exist.
        ImageError: not a usable image: no image, empty, cut short, of an unsupported kind.
        ImageTooLargeError: refused by a limit before decoding, or given up while decoding.
    """
    if _size_bytes(source.path, source.name, config) > ORDINARY_BYTES:
        return HELPER.read(source, config)
    try:
        return read_here(source, config, ordinary=True)
    except NotOrdinaryError:
        return HELPER.read(source, config)


class NotOrdinaryError(Exception):
    """A file is to be decoded under limits; never leaves :func:`read_image`."""


def read_here(
    source: ImageSource,
    config: ReadingConfig,
    *,
    ordinary: bool = False,
    opened: Callable[[int], None] | None = None,
) -> Field:
    """Read and decode one image in this process; the file is read once, for digest and pixels.

    Args:
        source: as for :func:`read_image`, and so are the errors.
        config: limits.
        ordinary: only a file that :func:`is_ordinary`.
        opened: called with the number of pixels before they are decoded.

    Raises:
        NotOrdinaryError: another kind of file than was wanted.
    """
    data = read_bytes(source.path, source.name, config)
    if ordinary and is_heif(data):
        raise NotOrdinaryError
    with decoder_boundary(source.name):
        image = open_checked(data, source.name, config)
        usual = not ordinary or is_ordinary(image, data)
        if usual:
            if opened is not None:
                opened(image.width * image.height)
            scale = StatedScale(source.pixel_size) if source.pixel_size else stated_scale(image)
            pixels, colour_note = to_rgb(image, data, source.name)
    if not usual:
        raise NotOrdinaryError
    return Field(
        image=pixels,
        source=source,
        pixel_size=scale.pixel_size,
        sha256=sha256_of(data),
        notes=tuple(filter(None, [scale.note, colour_note])),
    )


def read_bytes(path: Path, name: str, config: ReadingConfig) -> bytes:
    """The bytes of a regular file within the limit on file size.

    Raises:
        MissingFileError: the file does not exist.
        ImageError: it is a folder or a device, or the system refuses to read it.
        ImageTooLargeError: it has more bytes than ``reading.max_file_megabytes``.
    """
    size = _size_bytes(path, name, config)
    with _file_errors(path, name):
        return _content(path, size)


def _size_bytes(path: Path, name: str, config: ReadingConfig) -> int:
    """Size of a regular file within the limit; errors as of :func:`read_bytes`."""
    with _file_errors(path, name):
        status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{name}: not a file but a folder or device; give an image file")
    if status.st_size > config.max_file_megabytes * 1e6:
        raise ImageTooLargeError(
            f"{name}: {status.st_size / 1e6:.0f} MB; the limit is "
            f"{config.max_file_megabytes:g} MB. Split it into fields, or raise "
            "reading.max_file_megabytes"
        )
    return status.st_size


@contextmanager
def _file_errors(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingFileError(f"{name}: no such file ({path}); check the path") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read ({error.strerror}); check the file") from error


def _content(path: Path, size: int) -> bytes:
    """No more bytes than the file says it has: a kernel's pseudo-file says none and never ends."""
    if not size:
        return b""
    with path.open("rb") as stream:
        return stream.read(size)


def image_kind(field: Field, config: ReadingConfig) -> ImageKind:
    """What an image shows: as its source says, else decided by its size."""
    if field.place is not None:
        return ImageKind.FIELD
    height, width = field.image.shape[:2]
    return field.source.kind or kind_of_size(height, width, field.pixel_size, config)


def kind_of_size(
    height_px: int, width_px: int, pixel_size: PixelSize | None, config: ReadingConfig
) -> ImageKind:
    """A crop of one cell if both sides are below the limit: in um where the scale is known."""
    side = max(height_px, width_px)
    if pixel_size is None:
        is_cell = side <= config.max_cell_side_px
    else:
        is_cell = pixel_size.to_um(side) <= config.max_cell_side_um
    return ImageKind.CELL if is_cell else ImageKind.FIELD


MAX_LEVELS = 100
"""Folders in folders that are searched; what lies deeper is named and left out."""


def find_images(folder: Path) -> list[Path]:
    """All images below a folder, by extension, sorted by their path relative to it.

    DICOM files often have none: those are known by their first bytes.

    Hidden files and folders, ``Thumbs.db`` and their like are passed over, and so are the pictures
    that ``millie predict`` drew, should its output lie there. Links to a place inside
    the folder are passed over (their target is found itself). What cannot be read of the folder is
    told by :func:`unread_pictures`.

    Raises:
        MissingFileError: the folder does not exist.
        ManifestError: a link leads out of the folder.
    """
    if not folder.is_dir():
        raise MissingFileError(f"{folder}: no such folder; check the path")
    found = [path for path in _walk(folder) if is_image(path)]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def other_files(folder: Path) -> list[Path]:
    """Visible files below a folder that are not found as images."""
    return _others(_walk(folder))


def _others(files: Iterable[Path]) -> list[Path]:
    return sorted(path for path in files if not is_image(path))


def is_image(path: Path) -> bool:
    """Whether a file is found as an image: by its extension, or as DICOM where it has none."""
    return path.suffix.lower() in EXTENSIONS or is_dicom(path)


def unread_format(path: Path) -> ImageError:
    """Why a picture of :data:`OTHER_PICTURES` is not read, and what to do."""
    return ImageError(
        f"{path}: the format {path.suffix} cannot be read; export it as JPEG, PNG, TIFF or BMP"
    )


def unread_pictures(folder: Path) -> list[tuple[str, ImageError]]:
    """What below a folder may be lost: its name from the folder, and why.

    Pictures in a format that is not read, folders that cannot be searched, links to nothing.
    """
    lost: list[tuple[Path, ImageError]] = []
    others = _others(_walk(folder, lost))
    lost += [(p, unread_format(p)) for p in others if p.suffix.lower() in OTHER_PICTURES]
    return [(_shown(path, folder), error) for path, error in sorted(lost, key=_parts)]


def listed(folder: Path, level: int, lost: list[tuple[Path, ImageError]]) -> list[os.DirEntry[str]]:
    """Visible entries of a folder, but for the pictures that ``millie predict`` drew there.

    Args:
        folder: which may be gone or a file: then there are none.
        level: below the folder where the search began; none are given beyond ``MAX_LEVELS``.
        lost: a folder that cannot be listed is added, with the reason.
    """
    why = f"more than {MAX_LEVELS} folders deep; move its images up"
    try:
        if level <= MAX_LEVELS:
            with os.scandir(folder) as found:
                entries = list(found)
            own = any(entry.name == RESULT for entry in entries)
            return [e for e in entries if is_visible(e.name) and not (own and e.name == DRAWN)]
    except (NotADirectoryError, FileNotFoundError):
        return []
    except OSError as error:
        why = f"{error.strerror}; check its permissions"
    lost.append((folder, ImageError(f"{folder}: the folder cannot be searched ({why})")))
    return []


def _walk(folder: Path, lost: list[tuple[Path, ImageError]] | None = None) -> Iterator[Path]:
    """Visible regular files below a folder; links are checked and passed over."""
    root, waiting = resolved(folder), [(folder, 0)]
    while waiting:
        place, level = waiting.pop()
        for entry in listed(place, level, [] if lost is None else lost):
            path = place / entry.name
            if entry.is_symlink():
                _follow(path, root, lost)
            elif entry.is_dir():
                waiting.append((path, level + 1))
            else:
                yield path


def _follow(link: Path, root: Path, lost: list[tuple[Path, ImageError]] | None) -> None:
    """Refuse a link that leaves the folder; name one to nothing that is called like an image."""
    if not resolved(link).is_relative_to(root):
        raise ManifestError(
            f"{link}: a link that points outside {root}; copy the file there instead"
        )
    broken = link.suffix.lower() in EXTENSIONS and not os.path.exists(link)  # noqa: PTH110 - loops
    if broken and lost is not None:
        lost.append((link, ImageError(f"{link}: a link to nothing; copy the file there")))


def _parts(one: tuple[Path, ImageError]) -> tuple[str, ...]:
    return one[0].parts


def _shown(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    return name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}..."
