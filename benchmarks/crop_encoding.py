"""Which lossless encoding should the crops of a bag have?

Run by a person: ``python benchmarks/crop_encoding.py FOLDER [--cells 200]`` prints a Markdown table
for the JPEG crops below FOLDER at their native size and resized to 224 px. Each candidate writes
all crops into one HDF5 file in memory and reads them back; both ways include HDF5. Rates are cells
a second of one core's time, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import io
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Candidate:
    """A way to store crops: HDF5's own filters, or bytes made by ``encode``."""

    name: str
    filters: dict[str, Any]
    encode: Callable[[Pixels], bytes] | None = None
    decode: Callable[[bytes, tuple[int, ...]], Pixels] | None = None


def read_crops(folder: Path, count: int, size_px: int | None) -> Pixels:
    """Every k-th decodable crop below the folder, in sorted order; (N, S, S, 3)."""
    paths = sorted(p for p in folder.rglob("*.jpg") if p.stat().st_size < 200_000)
    crops: list[Pixels] = []
    for path in paths[:: max(1, len(paths) // (2 * count))]:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None or image.shape[:2] not in {(360, 363), (363, 360), (360, 360)}:
            continue
        image = np.ascontiguousarray(image[:360, :360, ::-1])
        if size_px is not None:
            image = cv2.resize(image, (size_px, size_px), interpolation=cv2.INTER_AREA)
        crops.append(image.astype(np.uint8))
        if len(crops) == count:
            break
    return np.stack(crops)


def delta(image: Pixels) -> Pixels:
    """Differences that deflate likes: R and B less G, then each pixel less its left neighbour."""
    planes = image.copy()
    planes[..., 0] -= image[..., 1]
    planes[..., 2] -= image[..., 1]
    planes[:, 1:] -= planes[:, :-1].copy()
    return np.ascontiguousarray(planes.transpose(2, 0, 1))


def undo_delta(data: bytes, shape: tuple[int, ...]) -> Pixels:
    planes = np.frombuffer(data, np.uint8).reshape(shape[2], shape[0], shape[1])
    image = np.cumsum(planes.transpose(1, 2, 0), axis=1, dtype=np.uint8)
    image[..., 0] += image[..., 1]
    image[..., 2] += image[..., 1]
    return image


def cv2_encode(extension: str, *flags: int) -> Callable[[Pixels], bytes]:
    def encode(image: Pixels) -> bytes:
        return bytes(cv2.imencode(extension, image, list(flags))[1])

    return encode


def cv2_decode(data: bytes, _shape: tuple[int, ...]) -> Pixels:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.astype(np.uint8, copy=False)


def pillow_encode(kind: str, **options: Any) -> Callable[[Pixels], bytes]:
    def encode(image: Pixels) -> bytes:
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, kind, **options)
        return stream.getvalue()

    return encode


def pillow_decode(data: bytes, _shape: tuple[int, ...]) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)))


def candidates() -> list[Candidate]:
    chunk = [
        Candidate("HDF5 raw", {}),
        Candidate("HDF5 lzf", {"compression": "lzf"}),
        Candidate("HDF5 lzf + shuffle", {"compression": "lzf", "shuffle": True}),
        Candidate("HDF5 gzip 1", {"compression": "gzip", "compression_opts": 1}),
        Candidate("HDF5 gzip 4", {"compression": "gzip", "compression_opts": 4}),
    ]
    deltas = [
        Candidate(
            f"delta + zlib {level}",
            {},
            lambda image, level=level: zlib.compress(delta(image), level),
            lambda data, shape: undo_delta(zlib.decompress(data), shape),
        )
        for level in (1, 6)
    ]
    png = [
        Candidate(
            f"PNG {level} (OpenCV)",
            {},
            cv2_encode(".png", cv2.IMWRITE_PNG_COMPRESSION, level),
            cv2_decode,
        )
        for level in (1, 3, 6)
    ]
    png.append(
        Candidate("PNG 1 (Pillow)", {}, pillow_encode("PNG", compress_level=1), pillow_decode)
    )
    webp = [
        Candidate(
            f"WebP lossless method {method} (Pillow)",
            {},
            pillow_encode("WEBP", lossless=True, quality=quality, method=method, exact=True),
            pillow_decode,
        )
        for method, quality in ((0, 0), (1, 25), (4, 75))
    ]
    webp.append(
        Candidate(
            "WebP lossless (OpenCV)",
            {},
            cv2_encode(".webp", cv2.IMWRITE_WEBP_QUALITY, 101),
            cv2_decode,
        )
    )
    return [*chunk, *deltas, *png, *webp]


def measure(candidate: Candidate, crops: Pixels) -> tuple[float, float, float]:
    """Encoded cells a second, decoded cells a second, bytes a cell."""
    shape = crops.shape[1:]
    with h5py.File("crops.h5", "w", driver="core", backing_store=False) as file:
        start = time.process_time()
        if candidate.encode is None:
            data = file.create_dataset("d", crops.shape, np.uint8, chunks=(1, *shape),
                                       **candidate.filters)  # fmt: skip
            for i, crop in enumerate(crops):
                data[i] = crop
        else:
            data = file.create_dataset("d", (len(crops),), h5py.vlen_dtype(np.uint8))
            for i, crop in enumerate(crops):
                data[i] = np.frombuffer(candidate.encode(crop), np.uint8)
        file.flush()
        middle = time.process_time()
        for i, crop in enumerate(crops):
            back = data[i] if candidate.decode is None else candidate.decode(data[i], shape)
            if not np.array_equal(back, crop):
                raise ValueError(f"{candidate.name} is not lossless")
        end = time.process_time()
        size = file.id.get_filesize()
    return len(crops) / (middle - start), len(crops) / (end - middle), size / len(crops)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=200)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    for size_px in (224, None):
        crops = read_crops(options.folder, options.cells, size_px)
        raw = crops[0].nbytes
        print(f"\n{len(crops)} crops of {crops.shape[1]} x {crops.shape[2]} px, {raw} bytes raw\n")
        print("| encoding | encode, cells/s | read, cells/s | bytes a cell | of raw |")
        print("|---|---|---|---|---|")
        for candidate in candidates():
            write, read, size = measure(candidate, crops)
            print(
                f"| {candidate.name} | {write:.0f} | {read:.0f} | {size:.0f} | {size / raw:.2f} |"
            )


if __name__ == "__main__":
    main()
