"""Was a model trained on these very images? Then a call tells nothing about new patients.

A bundle keeps a code of each image file that it was trained on: the first 63 bits of the file's
SHA-256. Who holds an image can find out whether it was used; nothing of an image, a name or a
patient can be got back from a code, and which images belong together is not kept. 8 bytes an image:
37 kB for the 4,672 images of ``apl-blood``. A copy that was encoded again is another file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from millie.types import Finding, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from millie.bags.store import BagReader

IMAGES = "images"
"""Name of the codes (I,) int64, sorted, among a bundle's reference tensors."""

_HEX_DIGITS = 16


def image_codes(digests: Iterable[str]) -> Tensor:
    """Codes (I,) int64, sorted, each once, of files by their SHA-256 (hex)."""
    codes = {int(digest[:_HEX_DIGITS], 16) >> 1 for digest in digests if digest}
    return torch.tensor(sorted(codes), dtype=torch.int64)


def trained_on(reader: BagReader, reference: Mapping[str, Tensor]) -> Problem | None:
    """A note where images of a bag are among those that the model was trained on.

    Args:
        reader: the patient's bag.
        reference: of the bundle; without codes nothing is known.
    """
    if IMAGES not in reference:
        return None
    own = image_codes(source.sha256 for source in reader.sources)
    known = int(torch.isin(own, reference[IMAGES]).sum())
    if not known:
        return None
    text = (
        f"{known:,} of {len(own):,} images are among those that the model was trained on: this "
        "call says nothing about how it calls new patients"
    )
    return Problem(reader.patient_id, "", Finding.TRAINED_ON, text, note=True)
