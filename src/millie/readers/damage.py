"""Damage that a decoder forgives: lost data that would come out as grey, black or shifted cells.

Owns what is checked beside decoding: the end of the file, PNG's check sums, the scans of a JPEG,
a second look at coded data by decoders that report what libjpeg only warns of and libtiff does not
check, and sectors of a disk that came back as one value where pixels lie uncompressed.
"""

from __future__ import annotations

import re
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg

from millie.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

_PNG_END = b"IEND\xaeB`\x82"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # ends entropy-coded data (ITU-T T.81, B.1.1.3)
_FILL = re.compile(rb"\xff+(?=\xff)")  # T.81, B.1.1.2
SOF = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Start of frame."""
SOS, FILL = 0xDA, 0xFF
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_EOI, _DHT = 0xD9, 0xC4
_ZEROS = bytes(32)
"""So many in a row are damage, unless zero bits stand for a blank block."""
NOTES = frozenset({*range(0xE0, 0xF0), 0xFE})
"""APPn and COM: profiles, EXIF, comments."""
_SECTOR_BYTES = 512
_APART = 32  # levels between what was overwritten and film; eyepieces, bars, frames are darker
_LEAST_ABOVE, _MOSTLY = 16, 0.9  # bytes of film above lost pixels; their share
_UNCOMPRESSED = 1  # TIFF 6.0, tag 259
_DEFLATE = frozenset({8, 32946})
_STEP_BYTES = 1 << 20
_PADDING_BYTES = 16 << 20  # of tiles beyond the edges of a picture

_LOST = re.compile(r"Corrupt JPEG data|Premature end of JPEG")
"""Warnings of libjpeg after which pixels are made up; others concern headers."""
_PADDING = re.compile(r": ([1-4]) extraneous bytes before marker 0xd9")
"""Some cameras pad the data before the end marker: nothing is lost."""

_JPEG_TABLES, _COMPRESSION, _BITS, _PLANAR = 347, 259, 258, 284  # TIFF 6.0 and Technical Note 2
_PLACES = ((273, 279), (324, 325))  # offsets and byte counts of strips, of tiles
_JPEG_IN_TIFF = 7


def check_structure(data: bytes, kind: str, name: str) -> None:
    """What the bytes show before anything is decoded: a cut file, lost scans, wrong check sums.

    Raises:
        ImageError: the file is damaged.
    """
    if is_cut_short(data, kind):
        raise ImageError(f"{name}: the {kind} file is truncated: copy it again")
    if kind == "PNG":
        _check_chunks(data, name)
    elif kind == "JPEG":
        _check_scans(data, name)
        _check_zeros(data, name)


def check_sectors(image: Image.Image, data: bytes, name: str) -> None:
    """Look for overwritten sectors of a disk, and for a lost end, in uncompressed pixels.

    Sectors come back filled with one byte; what was never copied is zeros to the end. What belongs
    to a picture (the surround of an eyepiece, a bar, a frame) is so in the rows beside it too, and
    ends where it likes. What was overwritten otherwise cannot be told from a picture.

    Args:
        image: the opened file.
        data: its bytes.
        name: the file, for the message.

    Raises:
        ImageError: there is such a part.
    """
    pixels = _pixels_as_stored(image, data)
    if pixels is None or not (_lost_sectors(data, *pixels) or _lost_end(data, *pixels)):
        return
    raise ImageError(
        f"{name}: part of the picture is lost (overwritten with one value); copy it again"
    )


def _pixels_as_stored(image: Image.Image, data: bytes) -> tuple[int, int, int] | None:
    """Where pixels that are not packed begin and end, and bytes a row; None: they are packed."""
    if image.format == "BMP" and image.info.get("compression") == 0:
        bits, first = (int.from_bytes(data[at : at + n], "little") for at, n in ((28, 2), (10, 4)))
        row = (image.width * bits + 31) // 32 * 4  # rows are padded to four bytes
        return first, min(len(data), first + row * image.height), row
    tags = getattr(image, "tag_v2", {})
    if image.format != "TIFF" or tags.get(_COMPRESSION, _UNCOMPRESSED) != _UNCOMPRESSED:
        return None
    starts, lengths = (tags.get(tag, ()) for tag in _PLACES[0])
    if not starts or len(starts) != len(lengths):
        return None
    bits = tags.get(_BITS, (8,))
    bits_a_pixel = sum(bits) if tags.get(_PLANAR, 1) == 1 else bits[0]
    end = max(start + length for start, length in zip(starts, lengths, strict=True))
    return min(starts), min(len(data), end), max(1, image.width * bits_a_pixel // 8)


def _lost_sectors(data: bytes, first: int, end: int, row: int) -> bool:
    """Whether a run of one byte begins and ends with sectors, unlike all that is around it."""
    count = len(data) // _SECTOR_BYTES
    sectors = np.frombuffer(data, np.uint8, count * _SECTOR_BYTES).reshape(count, _SECTOR_BYTES)
    even = (sectors == sectors[:, :1]).all(axis=1)
    fills = np.where(even, sectors[:, 0].astype(int), -1)
    edges = np.flatnonzero(np.diff(fills, prepend=-1, append=-1))
    runs = ((a, b) for a, b in pairwise(edges.tolist()) if even[a])
    return any(
        _is_apart(data, a * _SECTOR_BYTES, min(b * _SECTOR_BYTES, end), first, end, row)
        for a, b in runs
    )


def _is_apart(data: bytes, start: int, stop: int, first: int, end: int, row: int) -> bool:
    """Whether a run of one byte is unlike the bytes before and behind it and the rows beside it."""
    if start - row < first or (start - first) % row == 0:
        return False
    value, behind = data[start], data[stop : min(stop + 4, end)]
    above = data[start - row : min(stop - row, start)]
    below = data[max(start + row, stop) : min(stop + row, end)]
    alike = any(part.count(value) > len(part) / 2 for part in (above, below))
    return not alike and all(abs(b - value) >= _APART for b in data[start - 4 : start] + behind)


def _lost_end(data: bytes, first: int, end: int, row: int) -> bool:
    """Whether zeros to the end begin within a row, below pixels that are not black."""
    start = first + len(data[first:end].rstrip(b"\0"))
    past = (start - first) % row
    above = np.frombuffer(data[start - row : start - past], np.uint8)
    if end - start < _SECTOR_BYTES or past == 0 or len(above) < _LEAST_ABOVE or start - row < first:
        return False
    return bool((above >= _APART).mean() > _MOSTLY)


def check_coded(image: Image.Image, data: bytes, name: str) -> None:
    """Follow the coded data of a JPEG, or of JPEG or Deflate inside TIFF, to its end.

    Args:
        image: the opened file.
        data: its bytes.
        name: the file, for the message.

    Raises:
        ImageError: data are lost, for which a decoder would make up pixels.
    """
    for stream in _jpeg_streams(image, data):
        if image.format == "TIFF":
            check_structure(stream, "JPEG", name)
        try:
            simplejpeg.decode_jpeg(
                stream, "GRAY", fastdct=True, fastupsample=True, min_height=1, min_width=1,
                min_factor=8, strict=True,
            )  # fmt: skip
        except ValueError as error:
            if _LOST.search(str(error)) and not _PADDING.search(str(error)):
                raise ImageError(
                    f"{name}: part of the picture is lost ({error}): the file was cut short or "
                    "overwritten; copy it again"
                ) from None

    if getattr(image, "tag_v2", {}).get(_COMPRESSION) in _DEFLATE:
        _check_deflated(image, data, name)


def _check_deflated(image: Image.Image, data: bytes, name: str) -> None:
    """Check sums of strips and tiles (RFC 1950), which libtiff does not ask for."""
    left = 2 * image.width * image.height * len(image.getbands()) * 2 + _PADDING_BYTES
    for strip in _strips(image, data):
        unpacker, rest = zlib.decompressobj(), strip
        try:
            while rest and not unpacker.eof and left > 0:
                left -= len(unpacker.decompress(rest, _STEP_BYTES))
                rest = unpacker.unconsumed_tail
        except zlib.error as error:
            raise ImageError(
                f"{name}: part of the picture is lost ({error}): the file was cut short or "
                "overwritten; copy it again"
            ) from None


def is_cut_short(data: bytes, image_format: str) -> bool:
    """Whether a JPEG or PNG lacks its end; cheap, nothing is decoded.

    A JPEG ends with the EOI marker; one inside an embedded thumbnail does not count, and zeros
    or notes of the camera may follow it (ITU-T T.81, B.1.1.3). Other formats give False.
    """
    if image_format == "PNG":
        return _PNG_END not in data
    if image_format != "JPEG":
        return False
    last = 0
    for marker, _, _ in jpeg_segments(data):
        last = marker
    return last != _EOI


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment up to the end marker, coded data passed over.

    Markers without a length come as two bytes, fill bytes in one piece as :data:`FILL`.
    """
    position, scanned = 2, False
    while position + 2 <= len(data):
        if data[position] != 0xFF:
            return
        marker = data[position + 1]
        if marker == FILL:
            filled = _FILL.match(data, position)
            end = filled.end() if filled else position + 1
            yield marker, position, end
            position = end
            continue
        if marker == _EOI:
            if scanned:
                yield marker, position, position + 2
            return
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            yield marker, position, position + 2
            position += 2
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4])
        yield marker, position, end
        if marker == SOS:
            scanned = True
            found = _MARKER.search(data, end)
            if found is None:
                return
            end = found.start()
        position = end


def _check_scans(data: bytes, name: str) -> None:
    """Each component must arrive, in a progressive file each coefficient to its last bit."""
    wanted: dict[int, set[int]] = {}
    progressive = False
    for marker, start, end in jpeg_segments(data):
        body = data[start + 4 : end]
        if marker in SOF and not wanted:
            progressive = marker in _PROGRESSIVE
            coefficients = range(64) if progressive else range(1)
            wanted = {component: set(coefficients) for component in body[6::3]}
        elif marker == SOS and body:
            _take_off(wanted, body, progressive=progressive)
    if any(wanted.values()):
        raise ImageError(f"{name}: the JPEG file is truncated (scans are missing): copy it again")


def _check_zeros(data: bytes, name: str) -> None:
    """A sector of zeros is valid code for pixels that no camera sees: decoders accept it."""
    first_codes: dict[int, int] = {}
    begin = 0
    for marker, start, stop in jpeg_segments(data):
        if begin and data.find(_ZEROS, begin, start) >= 0:
            raise ImageError(
                f"{name}: part of the picture is lost (overwritten with zeros); copy it again"
            )
        body, begin = data[start + 4 : stop], 0
        if marker == _DHT:
            first_codes.update(_first_codes(body))
        elif marker == SOS and _never_zeros(body, first_codes):
            begin = stop


def _first_codes(tables: bytes) -> Iterator[tuple[int, int]]:
    """Class and number of each Huffman table (T.81, B.2.4.2) and its symbol of zero bits only."""
    while len(tables) > 17:
        yield tables[0], tables[17]
        tables = tables[17 + sum(tables[1:17]) :]


def _never_zeros(scan: bytes, first_codes: dict[int, int]) -> bool:
    """Whether many zero bits in this scan mean coefficients that no picture has.

    They do not where they mean "as before" or "end of block": a blank picture may be coded so.
    """
    n = scan[0]
    _, last, bits = (*scan[1 + 2 * n : 4 + 2 * n], 0, 0, 0)[:3]
    tables = scan[2 : 1 + 2 * n : 2]
    if last == 0:  # progressive, mean values: a first pass in steps, or later single bits
        return bits < 16 and any(first_codes.get(table >> 4, 0) > 1 for table in tables)
    return any(first_codes.get(0x10 | table & 15, 0) & 15 for table in tables)


def _take_off(wanted: dict[int, set[int]], scan: bytes, *, progressive: bool) -> None:
    """Take off what a scan header (T.81, B.2.3) brings to its end."""
    n = scan[0]
    first, last, bits = (*scan[1 + 2 * n : 4 + 2 * n], 0, 0, 0)[:3]
    for component in scan[1 : 1 + 2 * n : 2]:
        if not progressive:
            wanted.pop(component, None)
        elif bits & 15 == 0:
            wanted.get(component, set()).difference_update(range(first, last + 1))


def _check_chunks(data: bytes, name: str) -> None:
    """Check sums of the chunks that make the picture (PNG 3, 5.3 and 5.4)."""
    view = memoryview(data)
    position = 8
    while True:
        length = int.from_bytes(view[position : position + 4])
        kind = bytes(view[position + 4 : position + 8])
        body, end = view[position + 4 : position + 8 + length], position + 12 + length
        stored = int.from_bytes(view[end - 4 : end])
        if kind[:1].isupper() and (end > len(data) or zlib.crc32(body) != stored):
            raise ImageError(
                f"{name}: the PNG file is damaged (check sum of {kind.decode('latin-1')} differs): "
                "copy it again"
            )
        if kind == b"IEND" or end > len(data):
            return
        position = end


def _jpeg_streams(image: Image.Image, data: bytes) -> Iterator[bytes]:
    """The file without its notes, or the strips and tiles of a TIFF with the tables they share."""
    if image.format == "JPEG":
        yield _without_notes(data)
    tags = getattr(image, "tag_v2", {})
    if image.format != "TIFF" or tags.get(_COMPRESSION) != _JPEG_IN_TIFF:
        return
    tables = tags.get(_JPEG_TABLES, b"")
    for strip in _strips(image, data):
        yield tables[:-2] + strip[2:] if tables else strip


def _strips(image: Image.Image, data: bytes) -> Iterator[bytes]:
    """Strips and tiles of a TIFF, as they are stored."""
    tags = getattr(image, "tag_v2", {})
    for offsets, counts in _PLACES:
        for start, length in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False):
            yield data[start : start + length]


def _without_notes(data: bytes) -> bytes:
    """A JPEG without profiles and comments: only the first warning is told, and none of theirs."""
    parts, kept = [], 0
    for marker, start, end in jpeg_segments(data):
        if marker == SOS:
            break
        if marker in NOTES:
            parts.append(data[kept:start])
            kept = end
    return b"".join([*parts, data[kept:]])
