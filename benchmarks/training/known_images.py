"""Give a trained bundle the codes of its training images, where it was trained before it kept them.

`python benchmarks/training/known_images.py BUNDLE MANIFEST_OR_FOLDER...` hashes the images and
writes the bundle again in its place: weights, settings, card and date stay, its SHA-256 changes. A
bundle that `millie train` makes has them already.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from millie import read_cohort
from millie.inference.trained_on import IMAGES, image_codes
from millie.models.bundle import BundleDescription, load_bundle, save_bundle


def main() -> None:
    folder, inputs = Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]]
    images = [image.path for p in read_cohort(inputs).patients for image in p.images]
    codes = image_codes(hashlib.sha256(path.read_bytes()).hexdigest() for path in images)
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
