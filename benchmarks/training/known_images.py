"""Give a bundle the codes of its training images, where it was trained before these were kept.

`python benchmarks/training/known_images.py BUNDLE STORE_OR_MANIFEST` takes the images of its
training and writes the bundle again in its place: weights, settings, card and date stay, its
SHA-256 changes. A bundle that `millie train` makes has them already.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from millie import read_cohort
from millie.bags.store import BagReader, Store
from millie.inference.trained_on import IMAGES, image_codes
from millie.models.bundle import BundleDescription, load_bundle, save_bundle


def of_store(store: Path) -> Iterator[str]:
    """Digests of the images that gave the cells of a bag store."""
    for path in Store(store).files():
        with BagReader(path) as bag:
            yield from (source.sha256 for source in bag.sources)


def of_manifest(manifest: Path) -> Iterator[str]:
    """Digests of the images that a manifest names."""
    for patient in read_cohort(manifest).patients:
        for image in patient.images:
            yield hashlib.sha256(image.path.read_bytes()).hexdigest()


def main() -> None:
    folder, training = Path(sys.argv[1]), Path(sys.argv[2])
    codes = image_codes(of_store(training) if training.is_dir() else of_manifest(training))
    bundle = load_bundle(folder)
    made = bundle.manifest
    description = BundleDescription(
        made.name, made.version, bundle.labels, made.positive, made.threshold, made.temperature,
        made.qc, made.provenance, bundle.card, made.created,
    )  # fmt: skip
    saved = save_bundle(
        folder, bundle.networks, bundle.config, description, made.encoder.weights_sha256,
        reference={**bundle.reference, IMAGES: codes}, golden=bundle.golden["embeddings"],
        replace=True,
    )  # fmt: skip
    print(f"{len(codes):,} images, {8 * len(codes):,} bytes -> {folder} {saved.sha256}")


if __name__ == "__main__":
    main()
