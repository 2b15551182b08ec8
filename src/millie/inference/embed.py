"""Features of a bag's cells: streamed with decoding ahead, or taken from the cache of the store.

This module owns the key of the cache: weights, runtime and background, so that a cached feature is
the one that would be computed now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from millie.bags.loading import Background, Recolour, stream
from millie.bags.store import BagReader, read_embeddings, write_embeddings
from millie.files import code_digest
from millie.inference.runtime import FeatureRuntime

Progress = Callable[[int, int], None]
"""``progress(cells done, cells in all)``."""

T = TypeVar("T")


def embed_bag(
    reader: BagReader,
    runtime: FeatureRuntime,
    digest: str = "",
    *,
    batch_size: int = 32,
    background: Background = "keep",
    colours: tuple[str, Recolour] | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> NDArray[np.float16]:
    """Features float16 (N, D) of all cells of a bag, in its order.

    Args:
        reader: the bag.
        runtime: computes features.
        digest: of the encoder's weights (hex); empty: the runtime's own.
        batch_size: cells in memory at a time.
        background: what is shown around the cell.
        colours: digest (hex) of a change of colours, and the change; None: none.
        cache: take them from the store's cache, and put them there.
        progress: called after each batch.

    Raises:
        BundleError: a feature is not finite.
        StoreError: the bag is damaged, or the cache cannot be written.
    """
    key = cache_key(runtime, digest or runtime.digest, background, colours[0] if colours else "")
    found = read_embeddings(reader.path, key) if cache else None
    if found is not None and found.shape == (reader.n_cells, runtime.dim):
        if progress is not None:
            progress(reader.n_cells, reader.n_cells)
        return found
    features = np.zeros((reader.n_cells, runtime.dim), np.float16)
    recolour = colours[1] if colours else None
    for start, images in ahead(stream(reader, batch_size, background, recolour)):
        stop = start + len(images)
        features[start:stop] = runtime(images)
        if progress is not None:
            progress(stop, reader.n_cells)
    if cache:
        write_embeddings(reader.path, key, features, reader.coordinates())
    return features


def cache_key(
    runtime: FeatureRuntime, digest: str, background: Background, colours: str = ""
) -> str:
    """SHA-256 (hex) over everything that a feature depends on besides the bag, code included."""
    code = code_digest("bags/loading.py", "inference/runtime.py", "models")
    parts = (code, digest, runtime.name, background, *([colours] if colours else []))
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(_next, items)
        while item := waiting.result():
            waiting = pool.submit(_next, items)
            yield item[0]


def _next(items: Iterator[T]) -> tuple[T] | None:
    for item in items:
        return (item,)
    return None
