"""Vectors are those of the run's own model; another one is refused."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from millie import pipeline
from millie.bags.loading import shown, to_tensor
from millie.bags.store import BagReader
from millie.errors import ConfigError
from millie.outputs.exports.samples import Exported, read_run
from millie.pipeline.exports import LAYOUTS, export_features, export_model


@pytest.fixture(scope="module")
def calls(bundle: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calls") / "calls"
    patients = pipeline.read_cohort([films]).patients[:2]
    folders = []
    for patient in patients:
        folder = out.parent / patient.id
        folder.mkdir()
        (folder / "field.jpg").write_bytes(patient.images[0].path.read_bytes())
        folders.append(folder)
    pipeline.predict(bundle, folders, out)
    return out


def test_vectors_are_those_that_the_model_saw(calls: Path, bundle: Path, tmp_path: Path) -> None:
    """The head over the exported vectors gives the run's own probabilities again."""
    model = pipeline.load_bundle(bundle)
    assert export_features("clam", calls, tmp_path / "clam", bundle) == Exported(2, ())
    content = json.loads((calls / "predictions.json").read_text())
    for path in sorted((tmp_path / "clam" / "pt_files").iterdir()):
        features = torch.load(path, weights_only=True)
        with h5py.File(path.parents[1] / "h5_files" / f"{path.stem}.h5") as file:
            np.testing.assert_array_equal(file["features"][:], features.numpy())
        mask = torch.ones(1, len(features), dtype=torch.bool)
        with torch.no_grad():
            logits = torch.stack([n.bag_logits(features[None], mask)[0] for n in model.networks])
        told = next(p for p in content["patients"] if p["patient"] in path.stem)
        found = model.probabilities(logits).numpy()
        np.testing.assert_allclose(found, list(told["probabilities"].values()), atol=2e-3)


@pytest.mark.parametrize("layout", [x for x in LAYOUTS if x not in {"clam", "parquet"}])
def test_every_layout_is_written_whole(
    layout: str, calls: Path, bundle: Path, tmp_path: Path
) -> None:
    assert export_features(layout, calls, tmp_path / "out", bundle).count == 2
    assert {p.name for p in tmp_path.iterdir()} == {"out"}
    assert layout == "anndata" or (tmp_path / "out" / "slides.csv").is_file()


def test_another_model_is_refused(calls: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name its folder with --model"):
        export_features("stamp", calls, tmp_path / "out")
    with pytest.raises(ConfigError, match="is another"):
        export_features("stamp", calls, tmp_path / "out", Path("src/millie/bundles/apl-blood"))
    assert not list(tmp_path.iterdir())


def test_the_onnx_graphs_give_the_probabilities_of_the_run(
    calls: Path, bundle: Path, tmp_path: Path
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package, reason="the extra onnx is not installed")
    out = export_model(bundle, tmp_path / "onnx")
    about = json.loads((out / "model.json").read_text())
    assert about["bundle_sha256"] == pipeline.load_bundle(bundle).sha256
    assert about["parity"]["probabilities"] <= 1e-4
    assert "no call" in " ".join(about["not_in_the_graphs"])
    encoder, patient = (
        runtime.InferenceSession(out / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("encoder", "patient")
    )
    run, samples = read_run(calls)
    for sample in samples:
        with BagReader(sample.bag) as reader:
            images = shown(reader, 0, reader.n_cells, about["images"]["background"])
        (features,) = encoder.run(None, {"images": to_tensor(images).numpy()})
        whole, alone = patient.run(None, {"features": features[None]})
        told = list(sample.result.probabilities.values())
        np.testing.assert_allclose(whole, told, atol=1e-3)
        np.testing.assert_allclose(alone, sample.probabilities, atol=1e-3)
    assert list(sample.result.probabilities) == about["labels"] == list(run.model.labels)
    with pytest.raises(ConfigError, match="is not replaced"):
        export_model(bundle, out)
