"""The small problems of the tests of training serve those of evaluation too."""

from __future__ import annotations

from ..learning.conftest import (
    one_thread,
    quick,
    tiny_encoder,
    tiny_in_table,
    toy,
    toy_material,
    toy_store,
    toy_task,
)

__all__ = [
    "one_thread", "quick", "tiny_encoder", "tiny_in_table", "toy", "toy_material", "toy_store",
    "toy_task",
]  # fmt: skip
