"""Image files: found in folders, read into fields, told apart as cells or fields of view.

Owns what touches the disk for one image: finding, limits on the file, one read for digest and
pixels. Conversion of bytes is decoding.py, the scale in a file's metadata metadata.py.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from millie.errors import ImageError, ImageTooLargeError, ManifestError, MissingFileError
from millie.files import is_visible
from millie.readers.content import sha256_of
from millie.readers.decoding import decoder_boundary, open_checked, to_rgb
from millie.readers.metadata import StatedScale, stated_scale
from millie.types import Field, ImageKind

if TYPE_CHECKING:
    from millie.config import ReadingConfig
    from millie.types import ImageSource, PixelSize

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib"})
"""Extensions by which images are found in a folder; what a file is, its content decides."""

OTHER_PICTURES = frozenset({
    ".webp", ".gif", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".dcm", ".svs", ".ndpi",
    ".mrxs", ".scn", ".czi", ".vsi", ".lif", ".nd2", ".bif", ".raw", ".dng", ".nef", ".cr2", ".arw",
})  # fmt: skip
"""Extensions of images that cannot be read: one in a patient's folder is reported, not ignored."""

_LONGEST_SHOWN = 200  # characters of a path

RESULT, DRAWN = "predictions.json", "overlays"
"""Mark an output of ``millie predict``: its overlays are not images of a patient."""


def read_image(source: ImageSource, config: ReadingConfig) -> Field:
    """Read and decode one image; the file is read once, for digest and pixels alike.

    Args:
        source: the file; its pixel size, if known, goes before the file's metadata.
        config: limits, checked on the file's size and header before anything is decoded.

    Raises:
        MissingFileError: the file does not exist.
        ImageError: not a usable image: no image, empty, cut short, of an unsupported kind.
        ImageTooLargeError: refused by a limit before decoding.
    """
    data = read_bytes(source.path, source.name, config)
    with decoder_boundary(source.name):
        opened = open_checked(data, source.name, config)
        scale = StatedScale(source.pixel_size) if source.pixel_size else stated_scale(opened)
        pixels, colour_note = to_rgb(opened, data, source.name)
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
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name}: not a file but a folder or device; give an image file")
        if status.st_size > config.max_file_megabytes * 1e6:
            raise ImageTooLargeError(
                f"{name}: {status.st_size / 1e6:.0f} MB; the limit is "
                f"{config.max_file_megabytes:g} MB. Split it into fields, or raise "
                "reading.max_file_megabytes"
            )
        return _content(path, status.st_size)
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


def find_images(folder: Path) -> list[Path]:
    """All images below a folder, by extension, sorted by their path relative to it.

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
    found = [path for path in _walk(folder).files if path.suffix.lower() in EXTENSIONS]
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def other_files(folder: Path) -> list[Path]:
    """Visible files below a folder that no extension marks as images."""
    return sorted(path for path in _walk(folder).files if path.suffix.lower() not in EXTENSIONS)


def unread_format(path: Path) -> ImageError:
    """Why a picture of :data:`OTHER_PICTURES` is not read, and what to do."""
    return ImageError(
        f"{path}: the format {path.suffix} cannot be read; export it as JPEG, PNG, TIFF or BMP"
    )


def unread_pictures(folder: Path) -> list[tuple[str, ImageError]]:
    """What below a folder is not read, by its name from there, and why not.

    Pictures in another format, folders that cannot be listed, links that lead to nothing.
    """
    walk = _walk(folder)
    others = [path for path in walk.files if path.suffix.lower() in OTHER_PICTURES]
    found = [*walk.lost, *((path, unread_format(path)) for path in others)]
    return [(_shown(path, folder), error) for path, error in sorted(found, key=_parts)]


def unlisted_folder(folder: Path, error: OSError) -> ImageError:
    """Why the files of a folder are missing, and what to do."""
    if error.errno == errno.ENAMETOOLONG:
        return ImageError(
            f"{str(folder)[:_LONGEST_SHOWN]}...: the path is too long; move the folder up"
        )
    return ImageError(
        f"{folder}: the folder cannot be listed ({error.strerror}); check its permissions"
    )


@dataclass(slots=True)
class _Found:
    """Visible regular files below a folder, and what of it cannot be reached."""

    files: list[Path] = field(default_factory=list)
    lost: list[tuple[Path, ImageError]] = field(default_factory=list)


def _walk(folder: Path) -> _Found:
    """Links are checked and passed over. A stack of our own: a tree may be thousands deep."""
    root = Path(os.path.realpath(folder))
    found, waiting = _Found(), [folder]
    while waiting:
        place = waiting.pop()
        try:
            with os.scandir(place) as listed:
                entries = list(listed)
        except OSError as error:
            found.lost.append((place, unlisted_folder(place, error)))
            continue
        own = any(entry.name == RESULT for entry in entries)
        for entry in entries:
            path = place / entry.name
            if not is_visible(entry.name) or (own and entry.name == DRAWN):
                continue
            if entry.is_symlink():
                _follow(path, root, found)
            elif entry.is_dir():
                waiting.append(path)
            else:
                found.files.append(path)
    return found


def _follow(link: Path, root: Path, found: _Found) -> None:
    """Refuse a link that leaves the folder; name one to nothing that is called like an image."""
    if not Path(os.path.realpath(link)).is_relative_to(root):
        raise ManifestError(
            f"{link}: a link that points outside {root}; copy the file there instead"
        )
    if link.suffix.lower() in EXTENSIONS and not os.path.exists(link):  # noqa: PTH110 - loops too
        found.lost.append((link, ImageError(f"{link}: a link to nothing; copy the file there")))


def _parts(one: tuple[Path, ImageError]) -> tuple[str, ...]:
    return one[0].parts


def _shown(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    return name if len(name) <= _LONGEST_SHOWN else f"{name[:_LONGEST_SHOWN]}..."
