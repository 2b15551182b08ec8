"""What decoding a file would cost, seen from its structure: refused before anything is decoded.

Owns the limits on scans, segments, chunks, directories and run lengths, the bytes that carry the
picture (padding does not count), and which files are decoded only under limits on processor time
and memory. Each limit is far above what programs write; what it costs to reach one is in
tests/readers/test_bombs.py.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from millie.errors import ImageTooLargeError
from millie.readers.damage import FILL, NOTES, SOF, SOS, jpeg_segments
from millie.readers.tiff import check_directories, is_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

MAX_SCANS = 200
"""Scans of one JPEG; encoders write about 10, and each costs a pass over the picture."""
MAX_SCAN_MEGAPIXELS = 1000
"""Scans times 1e6 px: 20 passes over the largest picture."""
MAX_SEGMENTS = 1000
"""Segments of one JPEG beside its scans; a colour profile has at most 255."""
MAX_NOTE_BYTES = 8_000_000
"""Profiles, EXIF and comments of one JPEG."""
MAX_FILL_BYTES = 65_536
"""Fill bytes (ITU-T T.81, B.1.1.2) between the segments of one JPEG; encoders write none."""
MAX_CHUNKS = 100_000
"""Chunks of one PNG; at the usual 8 kB each, ten times the largest picture."""
MAX_RLE_BYTES, MAX_RLE_PIXELS = 2_000_000, 4_000_000
"""Run-length coded BMP is decoded byte by byte in Python, 0.4 us each."""

ORDINARY_BYTES = 16_000_000
"""On disk: a field of 5 MP without compression."""
ORDINARY_PIXELS = 8_000_000
"""Of a picture that is decoded in the process that asks for it."""
_ORDINARY_EXIF_BYTES = 65_536
_NO_PICTURE_PACKS_TO = 10  # decoded bytes per byte of a PNG; of a film they are 1.5 to 4
_STEP_BYTES = 1 << 20


def check_cost(data: bytes, kind: str, name: str) -> None:
    """Refuse a file whose structure alone would keep a decoder busy.

    Args:
        data: the file's bytes.
        kind: JPEG, PNG, TIFF, BMP; of others nothing is known here.
        name: the file, for the message.

    Raises:
        ImageTooLargeError: one of the limits of this module is passed.
    """
    check = {"JPEG": _check_jpeg, "PNG": _check_png, "TIFF": check_directories, "BMP": _check_bmp}
    if kind in check:
        check[kind](data, name)


def coded_bytes(image: Image.Image, data: bytes) -> int:
    """Bytes of an opened file that carry its picture; comments and padding are none."""
    if image.format == "JPEG":
        return _scan_bytes(data)
    if image.format == "PNG":
        return _deflated_bytes(image, data)
    tags = getattr(image, "tag_v2", {})
    places = ((tags.get(o, ()), tags.get(n, ())) for o, n in ((273, 279), (324, 325)))
    strips = {place for offsets, counts in places for place in zip(offsets, counts, strict=False)}
    return min(len(data), sum(length for _, length in strips)) if strips else len(data)


def is_ordinary(image: Image.Image, data: bytes) -> bool:
    """Whether an opened file is decoded where it is asked for, as almost all are.

    Others are large, carry notes that take long to read, or are packed by code that could take any
    memory (JPEG, LZMA and the like inside TIFF).
    """
    if image.width * image.height > ORDINARY_PIXELS or len(data) > ORDINARY_BYTES:
        return False
    if image.format == "TIFF":
        return is_plain(data)
    return len(image.info.get("exif", b"")) <= _ORDINARY_EXIF_BYTES


def _check_jpeg(data: bytes, name: str) -> None:
    scans = others = notes = fill = pixels = 0
    for marker, start, end in jpeg_segments(data):
        scans += marker == SOS
        others += marker not in {SOS, FILL}
        notes += end - start if marker in NOTES else 0
        fill += end - start if marker == FILL else 0
        if marker in SOF and end - start >= 9:
            height, width = struct.unpack_from(">HH", data, start + 5)
            pixels = max(pixels, height * width)
        if others > MAX_SEGMENTS + 2 * scans:  # each scan may bring its tables
            _refuse(name, "segments", f"more than {MAX_SEGMENTS:,}")
        if notes > MAX_NOTE_BYTES:
            _refuse(name, "bytes of notes", f"more than {MAX_NOTE_BYTES:,}")
        if fill > MAX_FILL_BYTES:
            _refuse(name, "fill bytes", f"more than {MAX_FILL_BYTES:,}")
    if scans > MAX_SCANS or scans * pixels > MAX_SCAN_MEGAPIXELS * 1e6:
        limit = min(MAX_SCANS, int(MAX_SCAN_MEGAPIXELS * 1e6 / max(pixels, 1)))
        _refuse(name, "scans", f"{scans:,}; the limit is {limit} for {pixels / 1e6:.1f} MP")


def _refuse(name: str, what: str, found: str) -> None:
    raise ImageTooLargeError(
        f"{name}: a JPEG with too many {what} ({found}). No camera writes so many: save it anew"
    )


def _scan_bytes(data: bytes) -> int:
    total = begin = 0
    for marker, start, end in jpeg_segments(data):
        total += start - begin if begin else 0
        begin = end if marker == SOS else 0
    return total


def _check_png(data: bytes, name: str) -> None:
    for count, _ in enumerate(_chunks(data)):
        if count >= MAX_CHUNKS:
            raise ImageTooLargeError(
                f"{name}: more than {MAX_CHUNKS:,} chunks in a PNG. No program writes so many: "
                "save it anew"
            )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each chunk."""
    position = 8
    while position + 8 <= len(data):
        length = int.from_bytes(data[position : position + 4])
        kind = data[position + 4 : position + 8]
        yield kind, position + 8, position + 8 + length
        if kind == b"IEND":
            return
        position += 12 + length


def _deflated_bytes(image: Image.Image, data: bytes) -> int:
    """Bytes of the compressed stream; one that packs as no picture does is followed to its end."""
    parts = [(start, end) for kind, start, end in _chunks(data) if kind == b"IDAT"]
    total = sum(end - start for start, end in parts)
    if image.width * image.height * len(image.getbands()) < _NO_PICTURE_PACKS_TO * total:
        return total
    view, unpacker, taken = memoryview(data), zlib.decompressobj(), 0
    for start, end in parts:
        rest: bytes | memoryview = view[start:end]
        while len(rest) and not unpacker.eof:
            unpacker.decompress(rest, _STEP_BYTES)
            rest = unpacker.unconsumed_tail
        taken += end - start - len(unpacker.unused_data) if unpacker.eof else end - start
        if unpacker.eof:
            break
    return max(0, taken)


def _check_bmp(data: bytes, name: str) -> None:
    if len(data) < 34 or int.from_bytes(data[14:18], "little") < 40:
        return
    width, height = struct.unpack_from("<ii", data, 18)
    coded = int.from_bytes(data[30:34], "little") in {1, 2}  # BI_RLE8, BI_RLE4
    if coded and (len(data) > MAX_RLE_BYTES or abs(width * height) > MAX_RLE_PIXELS):
        raise ImageTooLargeError(
            f"{name}: a BMP in run-length code of {len(data) / 1e6:.1f} MB and "
            f"{abs(width * height) / 1e6:.1f} MP; the limits for this kind are "
            f"{MAX_RLE_BYTES / 1e6:g} MB and {MAX_RLE_PIXELS / 1e6:g} MP. Save it as PNG"
        )
