"""`millie predict`: which word is the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from millie.cli.models import model_and_inputs
from millie.errors import BundleError, ConfigError, MissingFileError
from millie.models.bundle_folder import DEFAULT_MODEL, shipped_bundles


def test_without_a_model_the_shipped_one_answers(tmp_path: Path) -> None:
    found = model_and_inputs([str(tmp_path), "b"])
    assert found == (DEFAULT_MODEL, [tmp_path, Path("b")])
    assert DEFAULT_MODEL in shipped_bundles()


def test_a_shipped_name_or_the_folder_of_a_bundle_is_the_model(tmp_path: Path) -> None:
    (tmp_path / "bundle.json").write_text("{}")
    assert model_and_inputs(["apl-blood", "films"]) == ("apl-blood", [Path("films")])
    assert model_and_inputs([str(tmp_path), "films"]) == (tmp_path, [Path("films")])


def test_a_folder_is_not_taken_for_the_shipped_model_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apl-blood").mkdir()
    (tmp_path / "apl-blood" / "bundle.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    model, _ = model_and_inputs(["./apl-blood", "films"])
    assert model == Path("apl-blood")
    assert isinstance(model, Path)


def test_a_model_without_its_manifest_is_no_patient(tmp_path: Path) -> None:
    for name in ("weights.safetensors", "config.toml"):
        (tmp_path / name).write_text("")
    with pytest.raises(BundleError, match="a model without its bundle"):
        model_and_inputs([str(tmp_path), "films"])


def test_a_model_alone_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="only a model is named; name images"):
        model_and_inputs(["apl-blood"])


def test_a_misspelt_model_says_which_there_are() -> None:
    with pytest.raises(MissingFileError, match=r"nor a shipped model .*apl-blood"):
        model_and_inputs(["apl-bloood", "films"])
