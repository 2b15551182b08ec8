"""Layouts of TIFF that Pillow does not read, or reads wrong: refused by their true name.

Owns a reading of the first directory (TIFF 6.0, section 2; BigTIFF), bounded, nothing decoded.
"""

from __future__ import annotations

import struct

from millie.errors import ImageError

_BITS, _COMPRESSION, _COLOURS, _SAMPLES, _PLANAR = 258, 259, 262, 277, 284
_EXTRA, _FORMAT, _SUBSAMPLING = 338, 339, 530
_DEFAULTS = {
    _BITS: 1, _COMPRESSION: 1, _COLOURS: -1, _SAMPLES: 1, _PLANAR: 1, _EXTRA: -1, _FORMAT: 1,
    _SUBSAMPLING: 2,
}  # fmt: skip
_WHITE_IS_ZERO, _YCBCR = 0, 6  # PhotometricInterpretation
_JPEG = frozenset({6, 7})
_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}  # BYTE, SHORT, LONG, LONG8
_MOST_ENTRIES = 4096

_READ_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34925, 50000})
_COMPRESSIONS = {
    22610: "JPEG XR", 33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000",
    34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG of DNG", 34927: "WebP", 34933: "PNG",
    34934: "JPEG XR", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex floating-point"}
_EXPORT = "export as 8-bit or 16-bit RGB, uncompressed or with LZW"


def check_layout(data: bytes, name: str) -> None:
    """Refuse a layout that would be misread; what is no directory at all is left to the decoder.

    Raises:
        ImageError: names the layout and what to do.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    try:
        tags = _first_directory(data, order, big=big)
    except struct.error:
        return
    why = _unread(tags)
    if why is None and big and order == ">":
        why = "a big-endian BigTIFF"
    if why is not None:
        raise ImageError(f"{name}: a TIFF with {why}: not supported; {_EXPORT}")


def _first_directory(data: bytes, order: str, *, big: bool) -> dict[int, int]:
    """First value of each tag that decides the layout."""
    found = dict(_DEFAULTS)
    (place,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, place)
    place += 8 if big else 2
    size, inline = (20, 8) if big else (12, 4)
    for entry in range(min(count, _MOST_ENTRIES)):
        start = place + entry * size
        tag, kind = struct.unpack_from(order + "HH", data, start)
        if tag not in found or kind not in _CODES:
            continue
        (length,) = struct.unpack_from(order + ("Q" if big else "I"), data, start + 4)
        where = start + size - inline
        if length * struct.calcsize("<" + _CODES[kind]) > inline:
            (where,) = struct.unpack_from(order + ("Q" if big else "I"), data, where)
        (found[tag],) = struct.unpack_from(order + _CODES[kind], data, where)
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
