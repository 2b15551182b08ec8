"""Splits: by patient, stratified, reproducible, and refused when they overlap."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millie.errors import ConfigError, ManifestError, MissingFileError, TrainingError
from millie.learning.splits import (
    Fold,
    Splits,
    check_splits,
    cut_validation,
    load_splits,
    make_splits,
)

if TYPE_CHECKING:
    from pathlib import Path


def cohort(**counts: int) -> dict[str, str]:
    return {f"{name}-{i:03d}": name for name, n in counts.items() for i in range(n)}


@settings(max_examples=40, deadline=None)
@given(
    a=st.integers(5, 30), b=st.integers(5, 30), c=st.integers(5, 9),
    folds=st.integers(2, 5), repeats=st.integers(1, 3), seed=st.integers(0, 99),
    fraction=st.floats(0, 0.5),
)  # fmt: skip
def test_no_patient_in_two_parts_and_each_tested_once_a_repeat(
    *, a: int, b: int, c: int, folds: int, repeats: int, seed: int, fraction: float
) -> None:
    labels = cohort(A=a, B=b, C=c)
    splits = make_splits(labels, folds, repeats, seed, fraction)
    assert len(splits.assignments) == folds * repeats
    for fold in splits.assignments:
        parts = [set(fold.train), set(fold.validation), set(fold.test)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == len(labels)
    for repeat in range(repeats):
        tested = Counter(p for f in splits.assignments if f.repeat == repeat for p in f.test)
        assert tested == Counter(labels.keys())


def test_every_fold_has_its_share_of_every_class() -> None:
    labels = cohort(APL=22, AML=60)
    for fold in make_splits(labels, 3, 4, 7, 0.2).assignments:
        apl = Counter(labels[p] for p in fold.test)["APL"]
        assert apl in (7, 8)
        assert len(fold.test) in (27, 28)
        assert Counter(labels[p] for p in fold.validation)["APL"] == 3


def test_order_of_the_listing_does_not_matter() -> None:
    labels = cohort(A=9, B=12)
    shuffled = dict(reversed(list(labels.items())))
    assert make_splits(labels, 3, 2, 0, 0.2) == make_splits(shuffled, 3, 2, 0, 0.2)


def test_repeats_and_seeds_deal_anew() -> None:
    labels = cohort(A=12, B=12)
    first = make_splits(labels, 3, 2, 0)
    assert first.assignments[0].test != first.assignments[3].test
    assert first != make_splits(labels, 3, 2, 1)
    assert first.digest() == make_splits(labels, 3, 2, 0).digest()


def test_more_repeats_keep_the_earlier_ones() -> None:
    labels = cohort(A=12, B=12)
    short, longer = make_splits(labels, 3, 1, 0, 0.2), make_splits(labels, 3, 3, 0, 0.2)
    assert short.assignments == longer.assignments[:3]


def test_validation_takes_from_every_class_but_never_all() -> None:
    labels = cohort(A=20, B=2, C=1)
    train, validation = cut_validation(labels, 0.5, np.random.default_rng(0))
    assert Counter(labels[p] for p in validation) == {"A": 10, "B": 1}
    assert {labels[p] for p in train} == {"A", "B", "C"}


def test_zero_fraction_leaves_validation_empty() -> None:
    assert all(f.validation == () for f in make_splits(cohort(A=6, B=6), 3, 1, 0).assignments)


def test_save_and_load_give_the_same(tmp_path: Path) -> None:
    splits = make_splits(cohort(A=9, B=12), 3, 2, 0, 0.2)
    splits.save(tmp_path / "splits.json")
    assert load_splits(tmp_path / "splits.json") == splits


def test_a_class_smaller_than_the_folds_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"too few patients for 3 folds: \{'B': 2\}"):
        make_splits(cohort(A=9, B=2), 3, 1, 0)


def test_one_class_is_refused() -> None:
    with pytest.raises(TrainingError, match="have the same class"):
        make_splits(cohort(A=9), 3, 1, 0)


def test_one_fold_is_refused() -> None:
    with pytest.raises(ConfigError, match="folds=1"):
        make_splits(cohort(A=9, B=9), 1, 1, 0)


def test_a_patient_in_two_parts_is_named() -> None:
    fold = Fold(0, 0, ("a", "b"), (), ("b", "c"))
    with pytest.raises(ManifestError, match="b are in two parts"):
        check_splits(Splits(2, 1, 0, (fold,)))


def test_a_patient_never_tested_is_named() -> None:
    fold = Fold(0, 0, ("a",), (), ("b",))
    with pytest.raises(ManifestError, match="a tested 0 times"):
        check_splits(Splits(2, 1, 0, (fold,)))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no splits at"):
        load_splits(tmp_path / "splits.json")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"folds": 2}'])
def test_a_file_without_splits_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(ManifestError, match="is not a file of splits"):
        load_splits(path)


def test_a_saved_overlap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    make_splits(cohort(A=6, B=6), 2, 1, 0).save(path)
    data = json.loads(path.read_text())
    data["assignments"][0]["train"].append(data["assignments"][0]["test"][0])
    path.write_text(json.dumps(data))
    with pytest.raises(ManifestError, match="are in two parts"):
        load_splits(path)
