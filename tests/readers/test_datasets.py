"""The table of data sets: each explains itself and refuses a folder that is not it."""

from __future__ import annotations

from pathlib import Path

import pytest

from millie.errors import ConfigError, ManifestError
from millie.readers.datasets import DATASETS, dataset, explain, listing, prepare
from millie.readers.published import Layout, count_notes


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_says_what_and_whose_it_is(name: str) -> None:
    known = dataset(name)
    assert known.name == name == known.layout.name
    text = explain(name)
    facts = (known.description, known.source, known.terms, known.patients, known.labels)
    for fact in (*facts, known.verified, *known.traps):
        assert fact
        assert " ".join(fact.split()) in " ".join(text.split())
    assert text.startswith(f"{name}: {known.summary}")
    assert "ROOT/" in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("name", DATASETS)
def test_a_folder_of_something_else_shows_both_trees(name: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(ManifestError, match=f"is not the set {name}") as error:
        dataset(name).prepare(tmp_path)
    expected, _, found = str(error.value).partition("found:")
    assert DATASETS[name].layout.tree in expected
    assert "holiday.jpg" in found
    with pytest.raises(ManifestError, match="found: no such folder"):
        dataset(name).prepare(tmp_path / "gone")


def test_another_set_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    with pytest.raises(ManifestError, match=r"(?s)im missing.*found.*this looks like all_idb2"):
        prepare("all_idb1", tmp_path)
    with pytest.raises(ManifestError, match="no image in img has a name like") as error:
        prepare("all_idb2", tmp_path)
    assert "looks like" not in str(error.value), "it is that set, only empty"
    with pytest.raises(ConfigError, match="unknown data set 'xyz'"):
        prepare("xyz", tmp_path)


def test_names_are_listed_in_order_and_guessed() -> None:
    assert [name for name, _ in listing()] == list(DATASETS)
    assert set(DATASETS) == {
        "all_idb1", "all_idb2", "ash", "apl_aml", "marrow_riechert", "pbc", "munich_aml",
        "aml_lmu", "bone_marrow_mll",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"unknown data set 'PBC' \(did you mean 'pbc'"):
        explain("PBC")
    with pytest.raises(ConfigError, match="unknown data set 'xyz'; known: all_idb1, all_idb2"):
        dataset("xyz")


LAYOUT = Layout("drawn", "ROOT/\n├── labels.csv\n└── images/", ("labels.csv", "images/"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "a" / "drawn"
    (root / "images" / "deep").mkdir(parents=True)
    (root / "labels.csv").touch()
    return root


def test_a_root_too_deep_or_too_shallow_names_the_right_one(root: Path, tmp_path: Path) -> None:
    assert LAYOUT.check(root) == root.resolve()
    for deep in (root / "images", root / "images" / "deep"):
        with pytest.raises(ManifestError, match=f"too deep: give --root {root.resolve()}\n"):
            LAYOUT.check(deep)
    for shallow in (tmp_path / "a", tmp_path):
        with pytest.raises(ManifestError, match=f"too high: give --root {root.resolve()}\n"):
            LAYOUT.check(shallow)


def test_a_label_file_renamed_or_missing_is_named(root: Path) -> None:
    (root / "labels.csv").rename(root / "Labels (1).csv")
    message = r"labels\.csv missing: if Labels \(1\)\.csv is that file, rename it to labels\.csv"
    with pytest.raises(ManifestError, match=message):
        LAYOUT.check(root)
    (root / "Labels (1).csv").unlink()
    with pytest.raises(ManifestError, match=r"labels\.csv missing: download the set"):
        LAYOUT.check(root)


def test_what_only_another_set_has_speaks_against_a_folder(root: Path) -> None:
    strict = Layout(
        "other", "ROOT/", ("images/", "cells/"), any_anchor=True, foreign=("labels.csv",)
    )
    with pytest.raises(ManifestError, match=r"labels\.csv belongs to another set"):
        strict.check(root)
    (root / "labels.csv").unlink()
    assert strict.check(root) == root.resolve()
    (root / "images" / "deep").rmdir()
    (root / "images").rmdir()
    with pytest.raises(ManifestError, match="it has none of images/, cells/"):
        strict.check(root)


def test_counts_are_compared_and_a_subset_is_no_failure() -> None:
    published = {"AML": 3, "APL": 2}
    assert not list(count_notes(published, published, "patients"))
    short = list(count_notes({"AML": 3}, published, "patients"))
    assert [problem.message for problem in short] == [
        "3 of the 5 published patients: a subset",
        "patients here (published): 0 APL (2)",
    ]
    swapped = list(count_notes({"AML": 2, "APL": 3}, published, "patients"))
    assert len(swapped) == 1
    more = list(count_notes({"AML": 4, "APL": 2}, published, "patients"))
    assert "6 patients, more than the 5 published" in more[0].message
    assert all(problem.note for problem in (*short, *swapped, *more))
