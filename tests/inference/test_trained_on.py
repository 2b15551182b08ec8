"""Images that a model was trained on are known again, and nothing else of them is kept."""

from __future__ import annotations

from collections.abc import Callable

import torch

from millie.bags.store import BagReader
from millie.inference.trained_on import IMAGES, image_codes, trained_on
from millie.types import Finding, ImageKind, SourceRecord

OWN, OTHER = "ab" * 32, "cd" * 32


def test_codes_are_8_bytes_an_image_sorted_and_each_once() -> None:
    codes = image_codes([OTHER, OWN, OWN, ""])
    assert codes.tolist() == sorted({int(OWN[:16], 16) >> 1, int(OTHER[:16], 16) >> 1})
    assert (codes.dtype, codes.element_size()) == (torch.int64, 8)
    assert image_codes([]).shape == (0,)


def test_the_whole_range_of_a_digest_fits() -> None:
    assert image_codes(["f" * 64]).tolist() == [2**63 - 1]


def test_a_bag_of_training_images_is_noted(make_bag: Callable[..., BagReader]) -> None:
    bag = make_bag(3, source=SourceRecord("a.jpg", OWN, ImageKind.CELL, None, 1, 1))
    found = trained_on(bag, {IMAGES: image_codes([OTHER, OWN])})
    assert found is not None
    assert (found.patient, found.error, found.note) == ("p", Finding.TRAINED_ON, True)
    assert found.message.startswith("1 of 1 images are among those that the model was trained on")
    assert trained_on(bag, {IMAGES: image_codes([OTHER])}) is None
    assert trained_on(bag, {}) is None
