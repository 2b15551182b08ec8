"""Damage that a decoder forgives: lost data that would come out as grey, black or shifted cells.

Owns what is checked beside decoding: the end of the file, PNG's check sums, the scans of a JPEG,
a second look at its entropy-coded data by a decoder that reports what libjpeg only warns of, and
sectors of a disk that came back as zeros where pixels lie uncompressed.
"""

from __future__ import annotations

import re
import zlib
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
_FILM = 32  # of 255; eyepieces, bars and frames are darker
_UNCOMPRESSED = 1  # TIFF 6.0, tag 259

_LOST = re.compile(r"Corrupt JPEG data|Premature end of JPEG")
"""Warnings of libjpeg after which pixels are made up; others concern headers."""
_PADDING = re.compile(r": ([1-4]) extraneous bytes before marker 0xd9")
"""Some cameras pad the data before the end marker: nothing is lost."""

_JPEG_TABLES, _COMPRESSION = 347, 259  # TIFF 6.0 and Technical Note 2
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
    """Look for zeros that begin and end with sectors, within film, in uncompressed pixels.

    Black that belongs to a picture (the surround of an eyepiece, a bar, a frame) ends where it
    likes, or with rows. What was overwritten elsewhere cannot be told from it.

    Args:
        image: the opened file.
        data: its bytes.
        name: the file, for the message.

    Raises:
        ImageError: there are such zeros.
    """
    compression = getattr(image, "tag_v2", {}).get(_COMPRESSION, _UNCOMPRESSED)
    raw = image.format == "TIFF" and compression == _UNCOMPRESSED
    if not raw and not (image.format == "BMP" and image.info.get("compression") == 0):
        return
    place = getattr(image, "tag_v2", {}).get(_PLACES[0][0], (0,))[0]
    first = place if raw else int.from_bytes(data[10:14], "little")
    row = image.width * len(image.getbands())
    end = len(data.rstrip(b"\0"))
    count = len(data) // _SECTOR_BYTES
    sectors = np.frombuffer(data, np.uint8, count * _SECTOR_BYTES).reshape(count, _SECTOR_BYTES)
    empty = ~sectors.any(axis=1)
    edges = np.flatnonzero(np.diff(empty, prepend=False, append=False))
    for start, stop in (edges.reshape(-1, 2) * _SECTOR_BYTES).tolist():
        if start < first or (start - first) % row == 0:
            continue
        before, behind = data[start - 4 : start], data[stop : stop + 4]
        if min(before) >= _FILM and (stop >= end or min(behind) >= _FILM):
            raise ImageError(
                f"{name}: part of the picture is lost (overwritten with zeros); copy it again"
            )


def check_entropy(image: Image.Image, data: bytes, name: str) -> None:
    """Follow the coded data of a JPEG, or of JPEG inside TIFF, to its end.

    Args:
        image: the opened file.
        data: its bytes.
        name: the file, for the message.

    Raises:
        ImageError: libjpeg reports lost data, for which it would make up pixels.
    """
    for stream in _jpeg_streams(image, data):
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
    for offsets, counts in _PLACES:
        for start, length in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False):
            strip = data[start : start + length]
            yield tables[:-2] + strip[2:] if tables else strip


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
