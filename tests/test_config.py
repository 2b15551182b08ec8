"""Configuration: round trip, unknown keys, words, digests, profiles."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import pytest

from millie.config import STAGES, Config, load, profiles, to_toml
from millie.errors import ConfigError, MissingFileError


def test_saved_configuration_loads_equal(tmp_path: Path) -> None:
    config = Config().with_settings(["training.max_epochs=7", "model.hidden=[32]"])
    config.save(tmp_path / "c.toml")
    assert load(tmp_path / "c.toml") == config


@pytest.mark.parametrize("name", profiles())
def test_every_profile_loads_and_round_trips(name: str, tmp_path: Path) -> None:
    config = load(profile=name)
    config.save(tmp_path / "c.toml")
    assert load(tmp_path / "c.toml") == config


def test_paper_profile_states_the_papers_choices() -> None:
    paper = load(profile="paper")
    assert (paper.crops.size_px, paper.crops.size_um) == (200, 0)
    assert (paper.model.encoder, paper.model.aggregator) == ("vgg19", "max")
    assert (paper.training.optimiser, paper.training.learning_rate) == ("sgd", 3e-4)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("training.epochs=3", r"unknown key 'training\.epochs'; known here: mode, cells_per_step"),
        ("trainign.seed=3", r"unknown key 'trainign'; known here: reading"),
        ("seed=3", "expected stage.field=value"),
        ("training.seed", "expected stage.field=value"),
        ("training.seed=-1", r"training\.seed: .*greater than or equal to 0.*got -1"),
        ("training.optimiser=adam", "'sgd' or 'adamw'"),
    ],
)
def test_a_wrong_word_is_refused_with_the_remedy(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config().with_settings([word])


def test_words_take_toml_values_and_bare_text() -> None:
    config = Config().with_settings(
        ["model.aggregator=mean", "segmentation.um_px=0.1", "model.pretrained=false"]
    )
    assert config.model.aggregator == "mean"
    assert config.segmentation.um_px == 0.1
    assert config.model.pretrained is False
    assert config.with_settings(["segmentation.um_px=none"]).segmentation.um_px is None


def test_unknown_key_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[crops]\nsize = 3\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"c\.toml: unknown key 'crops\.size'"):
        load(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("= 3", "not valid TOML"),
        ("seed = 3", "outside a table"),
        ("seed = " + "9" * 5000, "not valid TOML"),
        ("seed = " + "[" * 5000, "not valid TOML"),
        ("training.seed" + ".a" * 5000 + " = 1", r"training\.seed: .* got \{'a': "),
        ("crops.size_um = inf", "finite number"),
        ("model.hidden = [0]", r"model\.hidden\.0: .*greater than or equal to 1"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load(path)


def test_missing_file_and_unknown_profile(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="unknown profile 'x'; known: default"):
        load(profile="x")


def test_a_file_overrides_the_base_and_keeps_the_rest(tmp_path: Path) -> None:
    base = Config().with_settings(["training.seed=5", "training.max_epochs=9"])
    path = tmp_path / "c.toml"
    path.write_text("[training]\nseed = 6\n", encoding="utf-8")
    config = load(path, base=base)
    assert (config.training.seed, config.training.max_epochs) == (6, 9)


def test_digest_follows_only_the_named_stages() -> None:
    a, b = Config(), Config().with_settings(["training.seed=1"])
    assert a.digest("crops", "reading") == b.digest("crops", "reading")
    assert a.digest("training") != b.digest("training")
    assert a.digest() != b.digest()


def test_every_setting_explains_itself() -> None:
    for stage in STAGES:
        kind = type(getattr(Config(), stage))
        assert kind.__doc__
    assert "[training]" in to_toml(Config())


def stated(profile: str) -> set[tuple[str, str]]:
    """Fields that a profile's file sets."""
    text = (resources.files("millie") / "profiles" / f"{profile}.toml").read_text(encoding="utf-8")
    return {(stage, field) for stage, own in tomllib.loads(text).items() for field in own}


@pytest.mark.parametrize("profile", ["paper", "released-code"])
def test_published_methods_do_not_follow_the_default(profile: str) -> None:
    """What differs between the default and the former one is stated in a published method."""
    default, former = Config().model_dump(), load(profile="whole-crop").model_dump()
    moved = {
        (stage, field)
        for stage, own in default.items()
        for field, value in own.items()
        if former[stage][field] != value
    }
    assert moved == stated("whole-crop")
    assert moved <= stated(profile)


def test_the_default_is_the_recipe_of_the_shipped_model() -> None:
    folder = resources.files("millie") / "bundles" / "apl-blood" / "config.toml"
    shipped = tomllib.loads(folder.read_text(encoding="utf-8"))
    default = Config().model_dump(mode="json")
    for stage in ("segmentation", "crops", "model", "augment", "training", "prediction"):
        assert shipped[stage] == {k: v for k, v in default[stage].items() if v is not None}
