"""A model under a new version: the same weights to the byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from millie.errors import BundleError, ConfigError, MissingFileError
from millie.models.bundle import load_bundle
from millie.models.bundle_folder import locate, read_settings
from millie.models.changes import changes
from millie.models.restate import restate_bundle
from millie.models.versions import Digit

if TYPE_CHECKING:
    from pathlib import Path


def test_only_what_was_restated_differs(tmp_path: Path) -> None:
    old, card = load_bundle("apl-blood"), tmp_path / "card.md"
    card.write_text("# Better\n", encoding="utf-8")
    new = restate_bundle(
        "apl-blood", tmp_path / "new", "1.0.1", card=card, requires_millie=">=0.1,<9"
    )
    assert (new.manifest.version, new.manifest.requires_millie) == ("1.0.1", ">=0.1,<9")
    assert (new.card, old.card[:11]) == ("# Better\n", "# apl-blood")
    for path in old.folder.iterdir():
        same = path.read_bytes() == (new.folder / path.name).read_bytes()
        assert same == (path.name not in {"MODEL_CARD.md", "bundle.json"}), path.name
    found = changes(read_settings(locate("apl-blood")), read_settings(new.folder))
    assert {change.digit for change in found} == {Digit.PATCH}


@pytest.mark.parametrize(
    ("version", "requirement", "message"),
    [
        ("1.0.0", None, r"not above 1\.0\.0 of apl-blood: give at least 1\.0\.1"),
        ("0.9.0", None, "not above"),
        ("2", None, "version: .*'2'"),
        ("1.0.1", "soon", "requires_millie: .*no range"),
    ],
)
def test_what_would_be_no_new_version_is_refused(
    tmp_path: Path, version: str, requirement: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        restate_bundle("apl-blood", tmp_path / "new", version, requires_millie=requirement)
    assert list(tmp_path.iterdir()) == []


def test_a_range_that_leaves_this_millie_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="needs millie >=77"):
        restate_bundle("apl-blood", tmp_path / "new", "1.0.1", requires_millie=">=77")
    assert list(tmp_path.iterdir()) == []


def test_a_card_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "card.md").write_bytes(b"\xff\xfe")
    for name in ("card.md", "none.md"):
        with pytest.raises(MissingFileError, match="cannot be read as UTF-8 text"):
            restate_bundle("apl-blood", tmp_path / "new", "1.0.1", card=tmp_path / name)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ConfigError, match="exists"):
        restate_bundle("apl-blood", tmp_path, "1.0.1")
