"""`millie predict`: which word is the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from millie.cli.models import model_and_inputs
from millie.errors import ConfigError
from millie.models.bundle_folder import DEFAULT_MODEL, shipped_bundles


def test_without_a_model_the_shipped_one_answers(tmp_path: Path) -> None:
    assert model_and_inputs([tmp_path, Path("b")]) == (DEFAULT_MODEL, [tmp_path, Path("b")])
    assert DEFAULT_MODEL in shipped_bundles()


def test_a_shipped_name_or_the_folder_of_a_bundle_is_the_model(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    for name in (Path("apl-blood"), tmp_path):
        assert model_and_inputs([name, Path("films")]) == (str(name), [Path("films")])


def test_a_model_alone_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="only a model is named; name images"):
        model_and_inputs([Path("apl-blood")])
