"""The model is loaded while images are cut, and nothing else changes by it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from millie import pipeline
from millie.bags.store import Store
from millie.config import Config
from millie.engines.seam import Engine, ProcessEngine, SerialEngine
from millie.errors import (
    BundleError,
    ConfigError,
    ManifestError,
    MissingFileError,
    MissingWeightsError,
)
from millie.models.encoders import new_encoder
from millie.pipeline import caller
from millie.pipeline.caller import KeptModel, loading, settings_for
from millie.types import Finding, Prediction


@pytest.fixture(scope="module")
def bundle(tiny_store: Path, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipeline.train(tiny_store, tmp_path_factory.mktemp("model") / "tiny", tiny_config).out


def test_settings_are_verified_before_torch_is_loaded() -> None:
    script = (
        "import sys, millie.pipeline as p; from millie.pipeline.caller import settings_for;"
        "print(settings_for('apl-blood', None, []).model.encoder);"
        "print([m for m in ('torch', 'matplotlib', 'sklearn', 'scipy.stats', 'openvino')"
        " if m in sys.modules])"
    )
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[1] == "[]", "predict waits for these while workers cut images"


def test_what_the_bundle_fixes_cannot_be_set(bundle: Path) -> None:
    assert settings_for(bundle, None, ["prediction.batch_size=3"]).prediction.batch_size == 3
    with pytest.raises(ConfigError, match="'crops' settings are fixed by the model tiny 1"):
        settings_for(bundle, None, ["crops.size_px=64"])
    with pytest.raises(ConfigError, match=r"prediction\.negative_labels is fixed by the model"):
        settings_for(bundle, None, ['prediction.negative_labels=["AML"]'])
    with pytest.raises(MissingFileError, match="neither a folder nor shipped"):
        settings_for("no-such-model", None, [])


def test_an_altered_bundle_is_refused_before_images_are_cut(bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in bundle.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = broken / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(BundleError, match="was altered"):
        settings_for(broken, None, [])


def test_what_is_wrong_with_the_images_is_said_before_a_model_is_loaded(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "_load", lambda *_: pytest.fail("loaded"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="no images"):
        pipeline.predict(bundle, tmp_path / "empty", tmp_path / "out")


def test_weights_that_are_a_file_are_named_again(
    tiny_store: Path, tiny_config: Config, tmp_path: Path
) -> None:
    """The bundle keeps their digest, not their place."""
    for seed in (1, 2):
        save_file(
            new_encoder("resnet_small", seed=seed).state_dict(), tmp_path / f"{seed}.safetensors"
        )
    own = f"model.weights={tmp_path / '1.safetensors'}"
    config = tiny_config.with_settings(
        [
            "model.encoder=resnet_small",
            "model.pretrained=true",
            own,
            "model.aggregator=mean",
            "model.hidden=[]",
        ]
    )
    model = pipeline.train(tiny_store, tmp_path / "model", config).out
    with pytest.raises(MissingWeightsError, match=r"--set model\.weights=FILE"):
        pipeline.predict(model, tiny_store, tmp_path / "calls")
    done = pipeline.predict(model, tiny_store, tmp_path / "calls", settings=own)
    assert done.predictions
    assert str(tmp_path) not in (tmp_path / "calls" / "predictions.json").read_text()
    with pytest.raises(BundleError, match="was trained on resnet_small with weights"):
        pipeline.predict(
            model, tiny_store, tmp_path / "calls", settings=own.replace("1.safe", "2.safe")
        )


@pytest.mark.parametrize("engine", [SerialEngine(), ProcessEngine(1)])
def test_the_caller_is_the_same_whoever_cuts(
    bundle: Path, tiny_store: Path, engine: Engine
) -> None:
    config = settings_for(bundle, None, [])
    reported: list[tuple[str, int, int]] = []
    with loading(bundle, config, engine, lambda *step: reported.append(step)) as (caller, watched):
        watched("segment", 1, 2)
        model = caller()
    bags = sorted(tiny_store.glob("*.h5"))
    predictions, problems = model.predict(bags, config, lambda *_: None)
    assert reported == [("segment", 1, 2)]
    assert {p.error for p in problems} == {Finding.TRAINED_ON}  # its own training patients
    assert json.loads(json.dumps(model.card(config)))["settings"] == {}
    with loading(bundle, config, None, lambda *_: None) as (nobody, _):
        expected, _ = nobody().predict(bags, config, lambda *_: None)
    assert [as_data(p) for p in predictions] == [as_data(p) for p in expected]
    counts = {bag.patient: bag.n_cells for bag in Store(tiny_store).index()}
    assert {p.patient: len(p.cell_probabilities) for p in expected} == counts


def as_data(prediction: Prediction) -> dict[str, Any]:
    """All of a prediction, the score of every cell and the winners included, to the bit."""
    return {**asdict(prediction), "cell_probabilities": prediction.cell_probabilities.tolist()}


def test_a_kept_model_is_loaded_once_and_anew_where_model_or_settings_are_others(
    bundle: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, load = [], caller._load

    def counted(*words: Any) -> Any:
        loaded.append(words)
        return load(*words)

    monkeypatch.setattr(caller, "_load", counted)
    kept = KeptModel()
    first = pipeline.predict(bundle, tiny_store, tmp_path / "1", kept=kept)
    second = pipeline.predict(bundle, tiny_store, tmp_path / "2", kept=kept)
    assert len(loaded) == 1
    assert [as_data(p) for p in first.predictions] == [as_data(p) for p in second.predictions]
    pipeline.predict(
        bundle, tiny_store, tmp_path / "3", settings="prediction.batch_size=3", kept=kept
    )
    assert len(loaded) == 2
    kept.caller("apl-blood", settings_for("apl-blood", None, []))
    assert len(loaded) == 3


def test_what_is_wrong_with_a_model_is_said_as_soon_as_it_is_known(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_bundle: object, _config: object) -> None:
        raise BundleError("weights are not finite")

    monkeypatch.setattr(caller, "_load", fail)
    config = settings_for(bundle, None, [])

    def cut() -> None:
        with loading(bundle, config, ProcessEngine(1), lambda *_: None) as (_, watched):
            for i in range(200):
                time.sleep(0.01)
                watched("segment", i, 200)
            pytest.fail("all images were cut for a model that cannot be used")

    with pytest.raises(BundleError, match="not finite"):
        cut()
