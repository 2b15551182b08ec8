"""The reference of files names exactly the columns and keys that are written."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest

from millie import pipeline
from millie.config import Config
from millie.outputs.study.subgroups import SUBGROUP_HEADER

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "files.md"
_SECTION = re.compile(r"^## `([^`]+)`\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `([^`]+)` \| (.+) \|$", re.MULTILINE)
DOCUMENTED = {
    name: dict(_ROW.findall(text)) for name, text in _SECTION.findall(PAGE.read_text("utf-8"))
}
"""Columns and their meaning by file."""
_LABELS = ("APL", "normal")


@pytest.fixture(scope="module")
def written(
    films: Path, tiny_store: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """What the commands leave behind, under the names that the page uses."""
    folder = tmp_path_factory.mktemp("outputs")
    pipeline.crossval(tiny_store, folder / "study", tiny_config, controls=True)
    model = pipeline.train(tiny_store, folder / "my-model", tiny_config)
    names = folder / "names.csv"
    pipeline.predict(model.out, films, folder / "calls", pseudonyms=names)
    pipeline.predict(model.out, films, folder / "later")
    pipeline.monitor([folder / "calls", folder / "later"], folder / "monitor")
    image = min(p for p in films.parent.rglob("*") if p.suffix in {".png", ".jpg"})
    pipeline.detect([image], folder / "detections.csv")
    return folder


def _columns(path: Path) -> set[str]:
    if path.suffix == ".json":
        return set(json.loads(path.read_text(encoding="utf-8")))
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return set(next(csv.reader(stream)))


def _known(columns: set[str], documented: set[str]) -> set[str]:
    """The columns in the page's words: ``LABEL`` for a class, ``NUMBER`` for what is watched."""
    pattern = re.compile("|".join(map(re.escape, _LABELS)))
    found = {c if c in documented else pattern.sub("LABEL", c) for c in columns}
    if "NUMBER" in documented:
        numbers = {c.removeprefix("evidence_") for c in found if c.startswith("evidence_")}
        assert numbers, "nothing was watched"
        found -= numbers | {f"evidence_{name}" for name in numbers}
        found |= {"NUMBER", "evidence_NUMBER"}
    return found


@pytest.mark.parametrize("name", sorted(DOCUMENTED.keys() - {"study/tables/subgroups.csv"}))
def test_the_page_names_the_columns_that_are_written(written: Path, name: str) -> None:
    documented = set(DOCUMENTED[name])
    assert _known(_columns(written / name), documented) == documented


def test_subgroups_are_written_where_there_are_groups() -> None:
    assert set(SUBGROUP_HEADER) == set(DOCUMENTED["study/tables/subgroups.csv"])


def test_every_table_that_is_written_is_on_the_page(written: Path) -> None:
    tables = {
        path.relative_to(written).as_posix() for path in written.rglob("*.csv")
        if not path.is_relative_to(written / "later")
    }  # fmt: skip
    logs = {t for t in tables if "/logs/" in t or "/controls/" in t or ".training/" in t}
    assert tables - logs <= DOCUMENTED.keys()


def test_every_column_has_a_meaning() -> None:
    assert len(DOCUMENTED) > 20
    assert all(meaning.strip() for columns in DOCUMENTED.values() for meaning in columns.values())
