"""Draws and loading of cells."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from millie.config import Config
from millie.errors import ConfigError, NoCellsError
from millie.learning.sampling import (
    EmbeddedCells,
    StoredCells,
    chunks,
    draw_steps,
    load_cells,
    whole_bag,
)

if TYPE_CHECKING:
    from millie.bags.store import Store


def settings(*words: str) -> Config:
    return Config().with_settings(list(words))


def test_an_epoch_shows_every_patient_once(toy) -> None:  # type: ignore[no-untyped-def]
    source, labels = toy
    steps = list(draw_steps(source, sorted(labels), Config(), np.random.default_rng(0)))
    assert Counter(bag.patient for step in steps for bag in step) == Counter(labels.keys())
    assert all(len(step) == 8 for step in steps)


def test_no_step_of_a_single_patient(toy) -> None:  # type: ignore[no-untyped-def]
    source, labels = toy
    some = sorted(labels)[:17]
    sizes = [len(s) for s in draw_steps(source, some, Config(), np.random.default_rng(0))]
    assert sizes == [8, 9]


@pytest.mark.parametrize("cells", [1, 5, 50])
def test_at_most_cells_per_step_all_different(toy, cells: int) -> None:  # type: ignore[no-untyped-def]
    source, labels = toy
    config = settings(f"training.cells_per_step={cells}")
    for step in draw_steps(source, sorted(labels), config, np.random.default_rng(0)):
        for bag in step:
            assert len(bag) == len(set(bag.indices)) == min(cells, source.count(bag.patient))


def test_varied_bags_have_every_size_small_ones_most_often(toy) -> None:  # type: ignore[no-untyped-def]
    source, labels = toy
    config = settings("training.cells_per_step=5", "training.vary_cells=true")
    rng = np.random.default_rng(0)
    sizes = Counter(
        len(bag)
        for _ in range(50)
        for step in draw_steps(source, sorted(labels), config, rng)
        for bag in step
    )
    assert set(sizes) == {1, 2, 3, 4, 5}
    assert sizes[1] > sizes[2] > sizes[5]
    # log-uniform: P(k) = log((k + 1) / k) / log(6)
    assert sizes[1] / sizes.total() == pytest.approx(np.log(2) / np.log(6), abs=0.04)


def test_embeddings_are_not_augmented_crops_are(toy, toy_store: Store) -> None:  # type: ignore[no-untyped-def]
    embedded = next(draw_steps(toy[0], sorted(toy[1]), Config(), np.random.default_rng(0)))
    assert all(bag.draws == () for bag in embedded)
    crops = StoredCells(toy_store)
    drawn = next(draw_steps(crops, ["apl-00"], Config(), np.random.default_rng(0)))[0]
    assert len(drawn.draws) == len(drawn)
    plain = crops.cells("apl-00", drawn.indices)
    assert not torch.equal(load_cells(crops, drawn), plain)


def test_a_drawn_bag_replays_the_same_cells_in_any_chunks(toy_store: Store) -> None:
    source = StoredCells(toy_store)
    bag = next(draw_steps(source, ["apl-01"], Config(), np.random.default_rng(3)))[0]
    whole = load_cells(source, bag)
    assert torch.equal(whole, load_cells(source, bag))
    parts = [load_cells(source, bag, part) for part in chunks(bag, 2)]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    picked = load_cells(source, bag, np.array([4, 1]))
    torch.testing.assert_close(picked, whole[[4, 1]], rtol=0, atol=1e-6)


def test_crops_are_the_same_with_and_without_memory(toy_store: Store) -> None:
    kept, read = StoredCells(toy_store), StoredCells(toy_store, memory_bytes=0)
    for patient in ("aml-00", "apl-03"):
        bag = whole_bag(kept, patient)
        assert torch.equal(load_cells(kept, bag), load_cells(read, bag))
        assert torch.equal(kept.cells(patient, np.array([2])), read.cells(patient, np.array([2])))


def test_background_changes_cells_and_digest(toy_store: Store) -> None:
    plain, only = StoredCells(toy_store), StoredCells(toy_store, "only")
    cells = only.cells("apl-00", np.array([0]))
    assert len(cells[0, :, 5:11, 5:11].unique()) == 1
    assert not torch.equal(cells, plain.cells("apl-00", np.array([0])))
    assert plain.digest(["apl-00"]) != only.digest(["apl-00"])


def test_digest_follows_content_and_patients() -> None:
    one = EmbeddedCells({"a": np.zeros((2, 3)), "b": np.ones((2, 3))})
    two = EmbeddedCells({"a": np.zeros((2, 3)), "b": np.full((2, 3), 2.0)})
    assert one.digest(["a", "b"]) != two.digest(["a", "b"])
    assert one.digest(["a"]) == two.digest(["a"]) != one.digest(["b"])


def test_a_patient_without_cells_is_named() -> None:
    with pytest.raises(NoCellsError, match="no cells for b"):
        EmbeddedCells({"a": np.zeros((2, 3)), "b": np.zeros((0, 3))})


def test_embeddings_of_two_widths_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\[3, 4\] features"):
        EmbeddedCells({"a": np.zeros((2, 3)), "b": np.zeros((2, 4))})
