"""Layouts of TIFF that Pillow does not read, or reads wrong: refused by their true name.

Owns a reading of the directories (TIFF 6.0, section 2; BigTIFF), bounded, nothing decoded: layouts
are refused by it, and directories that alone would take minutes or gigabytes.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from millie.errors import ImageError, ImageTooLargeError

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator, Mapping

    Buffer = bytes | mmap.mmap

MAX_VALUES = 200_000
"""Numbers in all directories, strips and tiles included: lines of the tallest picture in three
planes. Each costs Pillow 4 us and 270 bytes."""
MAX_TAG_BYTES = 50_000_000
"""Text and other notes in all directories; OME-XML of a plate of 10,000 fields has fewer than 20 MB
(metadata.py)."""
MAX_PAGES = 64
"""Directories that are looked at."""

_WIDTH, _LENGTH, _TILE_WIDTH = 256, 257, 322
_BITS, _COMPRESSION, _COLOURS, _SAMPLES, _PLANAR = 258, 259, 262, 277, 284
_EXTRA, _FORMAT, _SUBSAMPLING = 338, 339, 530
_DEFAULTS = {
    _BITS: 1, _COMPRESSION: 1, _COLOURS: -1, _SAMPLES: 1, _PLANAR: 1, _EXTRA: -1, _FORMAT: 1,
    _SUBSAMPLING: 2,
}  # fmt: skip
_WHITE_IS_ZERO, _YCBCR = 0, 6  # PhotometricInterpretation
_JPEG = frozenset({6, 7})
_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, LONG8
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
          16: 8, 17: 8, 18: 8}  # fmt: skip
"""Bytes a value, by type (TIFF 6.0, section 2; BigTIFF)."""
_OF_BYTES = frozenset({1, 2, 6, 7})  # these are kept as they stand, others become numbers
_EXIF, _INTEROP = 34665, 40965  # directories of their own
_MOST_ENTRIES = 1 << 16
_SHORT_NOTE_BYTES = 1_000_000
_PLAIN_CODE = frozenset({1, 5, 8, 32773, 32946})  # none, LZW, Deflate, PackBits: bounded memory

_READ_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000})
_COMPRESSIONS = {
    22610: "JPEG XR", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000",
    34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG of DNG", 34927: "WebP", 34933: "PNG",
    34934: "JPEG XR", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex floating-point"}
_COLOUR_NAMES = {
    -1: "unstated", 0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr",
    8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab", 32803: "colour filter array (raw camera)",
    32844: "LogL", 32845: "LogLuv", 34892: "linear raw",
}  # fmt: skip
"""PhotometricInterpretation: TIFF 6.0, TIFF/EP, DNG, SGI."""
EXPORT = "export as 8-bit or 16-bit RGB, uncompressed or with LZW"
"""What to do with a layout that is not read."""


def check_layout(data: bytes, name: str) -> None:
    """Refuse a layout that would be misread; what is no directory at all is left to the decoder.

    Raises:
        ImageError: names the layout and what to do.
    """
    order, big = _form(data)
    try:
        tags = _first_values(data)
    except struct.error:
        return
    why = _unread(tags)
    if why is None and big and order == ">":
        why = "a big-endian BigTIFF"
    if why is not None:
        raise ImageError(f"{name}: a TIFF with {why}: not supported; {EXPORT}")


def layout_name(data: bytes) -> str | None:
    """What kind of pixels the first directory states; None where it states no picture."""
    try:
        tags = _first_values(data, _DEFAULTS | {_WIDTH: 0, _LENGTH: 0})
    except struct.error:
        return None
    if not (tags[_WIDTH] and tags[_LENGTH]):
        return None
    colours = _COLOUR_NAMES.get(tags[_COLOURS], f"unknown ({tags[_COLOURS]})")
    n, channels = tags[_SAMPLES], "channel" if tags[_SAMPLES] == 1 else "channels"
    planes = " in separate planes" if tags[_PLANAR] == 2 else ""
    return f"{tags[_BITS]}-bit {colours} pixels in {n} {channels}{planes}"


def check_directories(data: bytes, name: str) -> None:
    """Refuse directories that hold more numbers or bytes than any picture needs.

    Raises:
        ImageTooLargeError: :data:`MAX_VALUES` or :data:`MAX_TAG_BYTES` is passed.
    """
    values, note_bytes = _amounts(data)
    if values > MAX_VALUES:
        raise ImageTooLargeError(
            f"{name}: a TIFF of {values:,} strips, tiles and other values; the limit is "
            f"{MAX_VALUES:,}. No program writes so many: save it anew"
        )
    if note_bytes > MAX_TAG_BYTES:
        raise ImageTooLargeError(
            f"{name}: {note_bytes / 1e6:.0f} MB of descriptions and notes in a TIFF; the limit is "
            f"{MAX_TAG_BYTES / 1e6:g} MB. Save it without them"
        )


def is_plain(data: bytes) -> bool:
    """Whether a TIFF has short notes and no code but those that need next to no memory."""
    try:
        code = _first_values(data)[_COMPRESSION]
    except struct.error:
        return False
    return code in _PLAIN_CODE and _amounts(data)[1] <= _SHORT_NOTE_BYTES


def _amounts(data: bytes) -> tuple[int, int]:
    """Numbers, and bytes of notes, in all directories; up to where they are cut short."""
    values = note_bytes = 0
    try:
        for stated, entries in _directories(data):
            notes = sum(entry.length for entry in entries if entry.kind in _OF_BYTES)
            values += stated + sum(entry.length for entry in entries) - notes
            note_bytes += notes
    except struct.error:
        pass  # the decoder says so
    return values, note_bytes


class _Entry(NamedTuple):
    """One tag: its type, number of values, and where the first one stands."""

    tag: int
    kind: int
    length: int
    place: int


def _form(data: Buffer) -> tuple[str, bool]:
    """Byte order, and whether it is BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    return order, struct.unpack_from(order + "H", data, 2)[0] == 43


def _directory(data: Buffer, place: int) -> tuple[int, list[_Entry], int]:
    """Stated number of entries at a place, the entries, and the place of the next (0: none)."""
    order, big = _form(data)
    word = order + ("Q" if big else "I")
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    start = place + (8 if big else 2)
    size, inline = (20, 8) if big else (12, 4)
    found = []
    for position in range(start, start + min(count, _MOST_ENTRIES) * size, size):
        tag, kind = struct.unpack_from(order + "HH", data, position)
        (length,) = struct.unpack_from(word, data, position + 4)
        where = position + size - inline
        if length * _SIZES.get(kind, 0) > inline:
            (where,) = struct.unpack_from(word, data, where)
        found.append(_Entry(tag, kind, length, where))
    try:
        (following,) = struct.unpack_from(word, data, start + count * size)
    except struct.error:
        following = 0
    return count, found, following


def _directories(data: bytes) -> Iterator[tuple[int, list[_Entry]]]:
    """Stated number of entries, and entries, of all that Pillow may read: pages, and EXIF's."""
    order, big = _form(data)
    waiting = [struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]]
    seen: set[int] = set()
    while waiting and len(seen) < MAX_PAGES:
        place = waiting.pop()
        if place in seen or not place:
            continue
        seen.add(place)
        stated, entries, following = _directory(data, place)
        yield stated, entries
        below = [e for e in entries if e.tag in {_EXIF, _INTEROP} and e.kind in _CODES]
        places = [struct.unpack_from(order + _CODES[e.kind], data, e.place)[0] for e in below]
        waiting += [following, *places]


def is_tiff(start: bytes) -> bool:
    """Whether a file's first four bytes are those of a TIFF, BigTIFF included."""
    return start in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}


def tiled_pixels(data: Buffer) -> int:
    """Pixels of a TIFF's first image if it is laid out in tiles, else 0; nothing is decoded."""
    try:
        tags = _first_values(data, dict.fromkeys((_WIDTH, _LENGTH, _TILE_WIDTH), 0))
    except struct.error:
        return 0
    return tags[_WIDTH] * tags[_LENGTH] if tags[_TILE_WIDTH] else 0


def _first_values(data: Buffer, defaults: Mapping[int, int] = _DEFAULTS) -> dict[int, int]:
    """First value of each wanted tag of the first directory: those that decide the layout."""
    order, big = _form(data)
    found = dict(defaults)
    place = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
    for entry in _directory(data, place)[1]:
        if entry.tag in found and entry.kind in _CODES:
            (found[entry.tag],) = struct.unpack_from(order + _CODES[entry.kind], data, entry.place)
    return found


def _unread(tags: dict[int, int]) -> str | None:
    bits, compression = tags[_BITS], tags[_COMPRESSION]
    if compression not in _READ_COMPRESSIONS:
        return f"{_COMPRESSIONS.get(compression, f'unknown ({compression})')} compression"
    if tags[_FORMAT] in _FORMATS:
        return f"{bits}-bit {_FORMATS[tags[_FORMAT]]} pixels"
    if bits not in {1, 2, 4, 8, 16}:
        return f"{bits}-bit pixels"
    subsampled = tags[_SUBSAMPLING] > 1 and compression not in _JPEG
    layouts = {
        "16-bit grey in which white is 0": bits == 16 and tags[_COLOURS] == _WHITE_IS_ZERO,
        "subsampled YCbCr": tags[_COLOURS] == _YCBCR and subsampled,
        "16-bit colours in separate planes": (tags[_PLANAR], bits, compression) == (2, 16, 1),
        "two channels, of which no colours can be made": tags[_SAMPLES] == 2 and tags[_EXTRA] <= 0,
    }
    return next((layout for layout, found in layouts.items() if found), None)
