"""Small or hollow files that would cost minutes or gigabytes: refused, or decoded within limits."""

from __future__ import annotations

import gc
import io
import os
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.config import ReadingConfig
from millie.errors import ImageError
from millie.readers import apart
from millie.readers.images import read_image
from millie.types import ImageSource

BIG = 7000
PADDING = 7_000_000


def jpeg(side: int = 64, **options: object) -> bytes:
    """A blank JPEG."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 180, 190)).save(buffer, "JPEG", **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def after_start(extra: bytes, data: bytes = b"") -> bytes:
    """A JPEG with more between its first marker and the rest."""
    data = data or jpeg()
    return data[:2] + extra + data[2:]


def restarts(count: int) -> bytes:
    return jpeg()[:-2] + b"\xff\xd0" * count + b"\xff\xd9"


def many_scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = jpeg(side, progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * count + data[-2:]


def comments(data: bytes, total: int) -> bytes:
    return after_start(segment(0xFE, bytes(65_000)) * (total // 65_000), data)


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(side: int, bits: int = 8, before: bytes = b"", after_data: bytes = b"") -> bytes:
    """A blank RGB PNG with more chunks before its data, or more bytes in them."""
    header = struct.pack(">IIBBBBB", side, side, bits, 2, 0, 0, 0)
    packer = zlib.compressobj(9)
    row = bytes(1 + side * 3 * bits // 8)
    data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    image = chunk(b"IHDR", header) + before + chunk(b"IDAT", data + after_data) + chunk(b"IEND")
    return b"\x89PNG\r\n\x1a\n" + image


def tiff(
    entries: dict[int, tuple[int, int, bytes | int]], tail: bytes = b"", *, start: int = 8
) -> bytes:
    """A little-endian TIFF: tag -> (type, count, bytes to place or value as it stands)."""
    place = start + 2 + 12 * len(entries) + 4
    directory, body = struct.pack("<H", len(entries)), b""
    for tag, (kind, count, value) in sorted(entries.items()):
        if isinstance(value, bytes):
            directory += struct.pack("<HHII", tag, kind, count, place + len(body))
            body += value
        else:
            directory += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", start) + directory + bytes(4) + body + tail


def plain_entries(
    side: int,
    offsets: tuple[int, int, bytes | int] = (4, 1, 8),
    counts: tuple[int, int, bytes | int] = (4, 1, 0),
    compression: int = 1,
) -> dict[int, tuple[int, int, bytes | int]]:
    return {
        256: (4, 1, side),
        257: (4, 1, side),
        258: (3, 1, 8),
        259: (3, 1, compression),
        262: (3, 1, 1),
        273: offsets,
        277: (3, 1, 1),
        278: (4, 1, 1),
        279: counts,
    }


def tiff_description(n: int) -> bytes:
    return tiff(
        {
            **plain_entries(64),
            270: (2, n, b"x" * (n - 1) + b"\0"),
            278: (4, 1, 64),
            279: (4, 1, 4096),
        }
    )


def tiff_strips(n: int) -> bytes:
    many = np.full(n, 8, "<u4").tobytes()
    return tiff(plain_entries(64, (4, n, many), (4, n, many)))


def tiff_tags(n: int, size: int) -> bytes:
    """Many tags that share the same bytes."""
    entries: dict[int, tuple[int, int, bytes | int]] = dict(plain_entries(64))
    entries[278], entries[279] = (4, 1, 64), (4, 1, 4096)
    for tag in range(40_000, 40_000 + n):
        entries[tag] = (7, size, 8)
    return tiff(entries, bytes(size))


def tiff_pages(n: int, size: int) -> bytes:
    """Thumbnails behind thumbnails, each with the same large tag."""
    data = b"II*\0" + struct.pack("<I", 8 + size) + bytes(size)
    for k in range(n):
        entries = {
            **plain_entries(64),
            254: (4, 1, 1 if k else 0),
            278: (4, 1, 64),
            279: (4, 1, 4096),
            40_000: (7, size, 8),
        }
        directory = struct.pack("<H", len(entries)) + b"".join(
            struct.pack("<HHII", t, *v) for t, v in sorted(entries.items())
        )
        data += directory + struct.pack("<I", len(data) + len(directory) + 4 if k < n - 1 else 0)
    return data


def tiff_shared_strips(side: int) -> bytes:
    packed = zlib.compress(bytes(side), 9)
    offsets = np.full(side, 8, "<u4").tobytes()
    counts = np.full(side, len(packed), "<u4").tobytes()
    entries = plain_entries(side, (4, side, offsets), (4, side, counts), 8)
    place = 8 + len(packed)
    return b"II*\0" + struct.pack("<I", place) + packed + tiff(entries, start=place)[8:]


def tiff_xml(n: int) -> bytes:
    body = b'<OME xmlns="a">' + b"<a/>" * n + b"</OME>\0"
    return tiff(
        {**plain_entries(64), 270: (2, len(body), body), 278: (4, 1, 64), 279: (4, 1, 4096)}
    )


def tiff_jpeg_scans(count: int) -> bytes:
    data = many_scans(512, count)
    entries = plain_entries(512, (4, 1, 8), (4, 1, len(data)), 7)
    entries |= {258: (3, 1, 8), 262: (3, 1, 6), 277: (3, 1, 3), 278: (4, 1, 512)}
    place = 8 + len(data) + len(data) % 2
    return (
        b"II*\0"
        + struct.pack("<I", place)
        + data
        + bytes(len(data) % 2)
        + tiff(entries, start=place)[8:]
    )


def bmp(width: int, height: int, compression: int, body: bytes) -> bytes:
    header = struct.pack(
        "<IiiHHIIiiII",
        40,
        width,
        height,
        1,
        4 if compression == 2 else 8,
        compression,
        len(body),
        0,
        0,
        0,
        0,
    )
    palette = bytes(4 * (16 if compression == 2 else 256))
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + header + palette + body


def exif_segments(count: int) -> bytes:
    return after_start(segment(0xE1, b"Exif\0\0" + bytes(60_000)) * count)


def profile() -> bytes:
    """The largest colour profile that a JPEG can hold."""
    parts = (b"ICC_PROFILE\0" + bytes((n + 1, 255)) + bytes(65_000) for n in range(255))
    return after_start(b"".join(segment(0xE2, part) for part in parts))


def data_chunks(count: int) -> bytes:
    return png(64).replace(chunk(b"IEND"), chunk(b"IDAT") * count + chunk(b"IEND"))


def swollen(kind: bytes, size: int, count: int = 1) -> bytes:
    """A PNG with compressed text or a profile of this size."""
    return png(64, 8, chunk(kind, b"a\0\0" + zlib.compress(bytes(size), 9)) * count)


def exif_fractions(count: int) -> bytes:
    """A PNG whose EXIF directory holds many fractions, which Pillow makes one by one."""
    below = struct.pack("<HHHII", 1, 0x9201, 5, count, 44) + bytes(4)
    above = struct.pack("<HHHII", 1, 34665, 4, 1, 26) + bytes(4)
    exif = b"II*\0" + struct.pack("<I", 8) + above + below + bytes(8 * count)
    return png(64, 8, chunk(b"eXIf", exif))


def padded_png(where: str) -> bytes:
    """Blank, 49 MP of 16 bit, and padded so that its ratio looks harmless."""
    if where == "data":
        return png(BIG, 16, b"", bytes(PADDING))
    return png(BIG, 16, chunk(b"tEXt", b"a\0" + bytes(PADDING)))


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "jpeg 10,526 scans": (lambda: many_scans(2000, 10_526), "scans"),
    "jpeg fill bytes": (lambda: after_start(b"\xff" * 15_000_000), "fill bytes"),
    "jpeg markers without length": (lambda: after_start(b"\xff\x01" * 7_000_000), "segments"),
    "jpeg empty segments": (lambda: after_start(segment(0xEF, b"") * 3_000_000), "segments"),
    "jpeg EXIF in 250 segments": (lambda: exif_segments(250), "bytes of notes"),
    "png 49 MP of 16 bit and comments": (lambda: padded_png("comments"), "200 : 1"),
    "png 1,000,000 chunks": (lambda: png(64, 8, chunk(b"teSt") * 1_000_000), "100,000 chunks"),
    "png text that swells": (lambda: swollen(b"zTXt", 1_000_000, 60), ""),
    "png profile that swells": (lambda: swollen(b"iCCP", 200_000_000), "too large for"),
    "tiff description of 15 MB": (lambda: tiff_description(15_000_000), ""),
    "tiff 1,500,000 strips": (lambda: tiff_strips(1_500_000), "3,000,016 strips"),
    "tiff 4,000 tags of 5 MB": (lambda: tiff_tags(4_000, 5_000_000), "notes"),
    "tiff 60 thumbnails with tags of 10 MB": (lambda: tiff_pages(60, 10_000_000), "notes"),
    "tiff strips that share their bytes": (lambda: tiff_shared_strips(BIG), "200 : 1"),
    "tiff 3,000,000 XML elements": (lambda: tiff_xml(3_000_000), ""),
    "bmp rle4": (lambda: bmp(BIG, BIG, 2, b"\xff\x07" * 300_000), "run-length"),
    "bmp rle8 without pixels": (lambda: bmp(64, 64, 1, b"\0\2\0\0" * 3_000_000), "run-length"),
    "bmp rle4 just small enough": (lambda: bmp(1999, 1999, 2, b"\0\0" * 990_000), "decoded"),
}  # fmt: skip
"""What makes the file, and what is said of it; nothing: it is decoded."""

HEAVY_BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "jpeg 180 scans of 49 MP": (lambda: comments(many_scans(BIG, 180), 5_000_000), "limit is 20 "),
    "jpeg 60 MB of fill bytes": (lambda: after_start(b"\xff" * 60_000_000), "fill bytes"),
    "jpeg EXIF in 2,000 segments": (lambda: exif_segments(2_000), "bytes of notes"),
    "jpeg restart markers": (lambda: restarts(7_000_000), ""),
    "jpeg 60 MB of restart markers": (lambda: restarts(30_000_000), ""),
    "jpeg of the largest profile": (profile, "bytes of notes"),
    "png 49 MP of 16 bit and bytes behind": (lambda: padded_png("data"), "200 : 1"),
    "png 2,000,000 chunks": (lambda: png(64, 8, chunk(b"teSt") * 2_000_000), "100,000 chunks"),
    "png 99,000 chunks of data": (lambda: data_chunks(99_000), ""),
    "png EXIF of 2,500,000 fractions": (lambda: exif_fractions(2_500_000), "[Ss]ave it anew"),
    "tiff description of 150 MB": (lambda: tiff_description(150_000_000), "150 MB of descriptions"),
    "tiff 16,000,000 strips": (lambda: tiff_strips(16_000_000), "32,000,016 strips"),
    "tiff 99,000 strips": (lambda: tiff_strips(99_000), ""),
    "tiff jpeg of 5,000 scans": (lambda: tiff_jpeg_scans(5_000), "cannot be decoded"),
    "bmp rle8": (lambda: bmp(BIG, BIG, 1, b"\x01\x07" * 24_500_000), "run-length"),
}  # fmt: skip
"""The same, larger or slower to make."""

MOST_CPU_S, MOST_MB = 2.5, 50.0
"""Goal: 2 s and 50 MB; a process that reaches its limit has been started as well."""


def status_mb(line: str) -> float:
    """A figure of this process in MB, as the kernel has it."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(row.split()[1]) for row in text.splitlines() if row.startswith(line)) / 1024


def cpu_s() -> float:
    """Processor time of this process and of the one that decodes."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    if helper := apart.HELPER._process:
        fields = Path(f"/proc/{helper.pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
        total += sum(map(int, fields.split()[11:13])) / os.sysconf("SC_CLK_TCK")
    return total


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The process that decodes, started: what that costs is paid once."""
    path = tmp_path_factory.mktemp("large") / "large.png"
    path.write_bytes(png(2900))
    read_image(ImageSource(path, path.name), ReadingConfig(max_expansion=5000))


def check_bomb(path: Path, make: Callable[[], bytes], said: str) -> None:
    path.write_bytes(make())
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is now
    before_mb, before_s = status_mb("VmRSS"), cpu_s()
    expected = pytest.raises(ImageError, match=rf"bomb.*{said}") if said else nullcontext()
    with expected:
        read_image(ImageSource(path, path.name), ReadingConfig())
    assert status_mb("VmHWM") - before_mb < MOST_MB
    assert cpu_s() - before_s < MOST_CPU_S


linux = pytest.mark.skipif(sys.platform != "linux", reason="memory and time are read from /proc")


@linux
@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("kind", BOMBS)
def test_bombs(tmp_path: Path, kind: str) -> None:
    check_bomb(tmp_path / "bomb", *BOMBS[kind])


@linux
@pytest.mark.long
@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("kind", HEAVY_BOMBS)
def test_heavy_bombs(tmp_path: Path, kind: str) -> None:
    check_bomb(tmp_path / "bomb", *HEAVY_BOMBS[kind])
