"""The final model: trained on everybody, calibrated out of fold, in a bundle that loads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from millie.bags.store import BagReader, Store
from millie.config import Config
from millie.errors import ConfigError, MissingFileError, TrainingError
from millie.inference.immature import LIMIT, immature_cells
from millie.inference.trained_on import image_codes
from millie.learning.ensemble import Material
from millie.learning.fit import fit, fit_bundle
from millie.learning.material import participants
from millie.learning.sampling import EmbeddedCells
from millie.models.bundle import load_bundle
from millie.models.encoders import build_encoder
from millie.models.weights import weights_digest

if TYPE_CHECKING:
    from pathlib import Path


class KilledError(Exception):
    """Stands for kill -9."""


@pytest.fixture(scope="module")
def config() -> Config:
    return Config().with_settings([
        "model.encoder=tiny", "model.pretrained=false", "prediction.runtime=torch",
        "model.hidden=[8]", "training.optimiser=adamw", "training.learning_rate=0.02",
        "training.max_epochs=6", "training.ensemble=3", "crops.size_px=16",
    ])  # fmt: skip


def test_everything_a_bundle_needs(toy_store: Store, config: Config) -> None:
    fitted = fit(toy_store, config)
    assert fitted.classes == ("AML", "APL")
    assert fitted.positive == "APL"
    assert len(fitted.networks) == 3
    assert 0 < fitted.threshold < 1
    assert fitted.temperature > 0
    assert fitted.encoder_sha256 == weights_digest(build_encoder(config.model))
    assert fitted.reference["mean"].shape == (6,)
    assert fitted.reference["um_px"].shape == (12,)
    images = set()
    for path in toy_store.files():
        with BagReader(path) as bag:
            images |= {source.sha256 for source in bag.sources}
    assert fitted.reference["images"].tolist() == image_codes(images).tolist()
    assert fitted.provenance["n_by_class"] == {"AML": 6, "APL": 6}
    assert sum(fitted.provenance["n_held_out"]) == 12
    text = json.dumps(fitted.provenance)
    assert "apl-00" not in text, "no pseudonyms in a bundle"


def test_the_least_share_of_immature_cells_is_that_of_patients_with_the_urgent_class(
    toy_store: Store,
) -> None:
    config = Config().with_settings(["training.max_epochs=1", "training.ensemble=2"])
    encoder, rng = build_encoder(config.model), np.random.default_rng(0)
    cells = {
        patient: rng.normal(0, 5, (8, encoder.dim)).astype(np.float32)
        for patient in participants(toy_store).labels
    }
    material = Material(EmbeddedCells(cells), encoder.dim, types=encoder.types)
    fitted = fit(toy_store, config, material=(material, "0" * 64))
    shares = {
        patient: immature_cells(fitted.networks[0], "blood_cell", torch.from_numpy(own)).mean()
        for patient, own in cells.items()
    }
    apl = [share for patient, share in shares.items() if patient.startswith("apl")]
    assert len(apl) == 6
    assert fitted.limits[LIMIT] == pytest.approx(min(apl))
    assert LIMIT not in fit(toy_store, config.with_settings([
        "model.aggregator=mean"]), material=(material, "0" * 64)).limits  # fmt: skip


def test_bundle_loads_and_reproduces_its_golden_sample(
    toy_store: Store, config: Config, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    fit_bundle(toy_store, config, folder, "toy")
    bundle = load_bundle(folder)
    bundle.check()
    assert bundle.labels == ("AML", "APL")
    assert bundle.manifest.positive == "APL"
    assert not bundle.manifest.encoder.trained
    assert "research use only" in bundle.card.lower()
    assert not list(tmp_path.rglob("*.checkpoint.safetensors"))
    assert (tmp_path / "model.training" / "network-0.csv").is_file()


def test_killed_and_run_again_gives_the_same_weights(
    toy_store: Store, config: Config, tmp_path: Path
) -> None:
    def kill(what: str, done: int, _total: int) -> None:
        if (what, done) == ("network-1", 4):
            raise KilledError

    with pytest.raises(KilledError):
        fit_bundle(toy_store, config, tmp_path / "a", "toy", kill)
    assert not (tmp_path / "a").exists()
    for name in ("a", "b"):
        fit_bundle(toy_store, config, tmp_path / name, "toy")
    first, second = (load_bundle(tmp_path / name) for name in ("a", "b"))
    assert (
        first.manifest.files["weights.safetensors"] == second.manifest.files["weights.safetensors"]
    )
    assert first.manifest.threshold == second.manifest.threshold


def test_a_training_killed_behind_its_last_step_is_a_success_when_run_again(
    toy_store: Store, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    (tmp_path / ".model.abcd1234" / "new").mkdir(parents=True)  # killed while it wrote the bundle
    (tmp_path / ".model.abcd1234" / "new" / "weights.safetensors").write_bytes(b"half")
    (tmp_path / ".model.mine").mkdir()

    def kill(_: Path) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr("millie.learning.fit._tidy", kill)
        with pytest.raises(KilledError):
            fit_bundle(toy_store, config, out, "toy")
    made = {path.name: path.read_bytes() for path in out.iterdir()}
    assert list(tmp_path.glob("model.training/*.checkpoint.safetensors"))

    monkeypatch.setattr("millie.learning.fit.fit", lambda *_, **__: pytest.fail("trained again"))
    again = fit_bundle(toy_store, config, out, "toy")
    assert again.classes == ("AML", "APL")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == made
    assert not list(tmp_path.glob("model.training/*.checkpoint.safetensors"))
    assert not list(tmp_path.glob("model.training/*.lock"))
    assert sorted(path.name for path in tmp_path.glob(".*")) == [".model.mine"]

    others = [
        (config.with_settings(["training.seed=9"]), "toy", None),
        (config, "other", None),
        (config, "toy", lambda *_: "another card"),
    ]
    for settings, name, card in others:
        with pytest.raises(ConfigError, match="exists"):
            fit_bundle(toy_store, settings, out, name, card=card)


def test_end_to_end_bundle_carries_its_encoders(
    toy_store: Store, config: Config, tmp_path: Path
) -> None:
    short = config.with_settings([
        "training.mode=end_to_end", "training.max_epochs=1", "training.ensemble=1",
    ])  # fmt: skip
    fit_bundle(toy_store, short, tmp_path / "model", "toy")
    bundle = load_bundle(tmp_path / "model")
    assert bundle.manifest.encoder.trained
    assert bundle.networks[0].encoder is not None
    with torch.no_grad():
        assert bundle.networks[0].embed(torch.rand(2, 3, 16, 16)).shape == (2, 6)


def test_an_existing_folder_is_refused_before_training(
    toy_store: Store, config: Config, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "something").touch()
    with pytest.raises(ConfigError, match="exists"):
        fit_bundle(toy_store, config, tmp_path / "model", "toy", lambda *_: pytest.fail("trained"))


def test_no_store_is_named(config: Config, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no bag store at"):
        fit(Store(tmp_path / "nothing"), config)


def test_an_empty_store_is_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="both a label and cells"):
        fit(Store(tmp_path), config)
