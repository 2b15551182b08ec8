"""What is saved of a model, and how it is trusted again.

A bundle is a folder of safetensors, TOML, text and one JSON manifest with the SHA-256 of each file;
nothing in it is code. ``load_bundle`` verifies all of it before a value is used. This module owns
reading and writing; what the manifest states is in :mod:`millie.models.manifest`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from millie.config import Config, ModelConfig, to_toml
from millie.errors import BundleError, ConfigError
from millie.models import manifest as layout
from millie.models.bundle_folder import (
    check_target,
    file_record,
    locate,
    parse_settings,
    read_folder,
    shipped_bundles,
    write_folder,
)
from millie.models.encoders import Encoder, build_encoder, new_encoder
from millie.models.golden import (
    TOLERANCE,
    check_classes,
    draw_input,
    ensemble_probabilities,
    golden_file,
    golden_gap,
    golden_sample,
)
from millie.models.manifest import EncoderRecord, Manifest
from millie.models.network import MilNetwork, build_network, load_tensors, state_tensors
from millie.models.versions import requirement_for
from millie.models.weights import check_tensors, weights_digest

__all__ = [
    "Bundle",
    "BundleDescription",
    "ensemble_probabilities",
    "load_bundle",
    "save_bundle",
    "shipped_bundles",
]

_REPRODUCED: set[str] = set()
"""Manifests (SHA-256) whose golden sample this process has reproduced: once is enough."""
_REMEDY = "; fetch or train the bundle again"


@dataclass(frozen=True, slots=True)
class BundleDescription:
    """What the maker of a bundle states; fields as in :class:`~millie.models.manifest.Manifest`.

    Attributes:
        card: text of the model card, Markdown.
        created: ISO 8601; empty: now.
        requires_millie: by default the versions that find and encode cells as this one does.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    positive: str
    threshold: float = 0.5
    temperature: float = 1.0
    qc: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    card: str = ""
    created: str = ""
    requires_millie: str = field(default_factory=requirement_for)


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified model.

    Attributes:
        folder: where it lies.
        manifest: what it states about itself.
        sha256: of ``bundle.json``; names the model, weights included, to the bit.
        config: the settings it was trained with; ``model.weights`` is not kept.
        networks: the ensemble, in evaluation mode; with encoders if those were trained.
        reference: of the training patients: ``mean``, ``std`` (D,) and ``distances`` (P,) of their
            features; ``held_out`` (H, C), calibrated probabilities of patients by networks that had
            not trained on them, and ``held_out_class`` (H,); ``um_px`` (P,), their images' scales.
            ``images`` (I,), codes of the files, see :mod:`millie.inference.trained_on`.
            May be empty, or lack the last four.
        golden: ``embeddings`` (n, D) or ``images`` uint8 (n, 3, S, S), and the ``probabilities``
            (C,) expected of them; see :meth:`check`.
        card: text of the model card.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    config: Config
    networks: list[MilNetwork]
    reference: dict[str, Tensor]
    golden: dict[str, Tensor]
    card: str

    def __repr__(self) -> str:
        return f"Bundle({self.name!r}, labels={self.labels}, networks={len(self.networks)})"

    @property
    def name(self) -> str:
        """Name and version, as outputs show them."""
        return f"{self.manifest.name} {self.manifest.version}"

    @property
    def held_out(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Probabilities (H, C) and classes (H,) of held-out patients; H is 0 where none is kept."""
        return held_out_of(self.reference, len(self.labels))

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes in the order of the probabilities."""
        return tuple(self.manifest.labels)

    def encoders(self, weights: Path | None = None) -> list[Encoder]:
        """One encoder for all networks, or one for each if they were trained.

        Args:
            weights: file with the pretrained weights, where they cannot be had by name.

        Raises:
            BundleError: the encoder on this machine has other weights than the bundle names.
            MissingWeightsError: they are not on this machine.
        """
        if self.manifest.encoder.trained:
            return [n.encoder for n in self.networks if n.encoder is not None]
        model = self.config.model
        encoder = build_encoder(model.model_copy(update={"weights": weights}))
        found, expected = weights_digest(encoder), self.manifest.encoder.weights_sha256
        if found != expected:
            raise BundleError(
                f"bundle {self.name} was trained on {model.encoder} with weights {expected[:16]}, "
                f"here are {found[:16]}: train it again (millie train), or install the millie that "
                f"made it ({self.manifest.provenance.get('millie', 'version not named')})"
            )
        return [encoder]

    def probabilities(self, logits: Tensor) -> Tensor:
        """Calibrated probabilities (..., C) from the networks' logits (networks, ..., C).

        See :func:`ensemble_probabilities`.

        Raises:
            ConfigError: the first axis is not the number of networks.
        """
        if len(logits) != len(self.networks):
            raise ConfigError(f"logits of {len(logits)} networks: expected {len(self.networks)}")
        return ensemble_probabilities(logits, self.manifest.temperature)

    def check(self) -> None:
        """Run the golden sample through the networks.

        A frozen encoder has no part in it: its weights have a digest, which :meth:`encoders`
        compares.

        Raises:
            BundleError: a probability differs by more than ``golden_tolerance``, of which a bundle
                may have less than millie's own, never more.
        """
        gap = golden_gap(self.golden, self.networks, self.manifest.temperature)
        allowed = min(self.manifest.golden_tolerance, TOLERANCE)
        if not gap <= allowed:
            raise BundleError(
                f"bundle {self.name} does not reproduce its golden sample: probabilities differ by "
                f"{gap:.2g}, allowed {allowed:.2g}. Fetch or train it again; if a fresh copy fails "
                "too, do not use it on this machine, and report what `millie doctor` prints"
            )


def held_out_of(
    reference: Mapping[str, Tensor], classes: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities (H, C) and classes (H,) of held-out patients in a reference, see Bundle."""
    if "held_out" not in reference:
        return np.zeros((0, classes)), np.zeros(0, np.int64)
    return reference["held_out"].double().numpy(), reference["held_out_class"].numpy()


def load_bundle(name_or_path: str | Path) -> Bundle:
    """Read a bundle and verify everything in it; its golden sample is run, once a process.

    Args:
        name_or_path: name of a shipped bundle, or a folder. A bare name that is both means the
            shipped one if it is a string (write ``./name`` for the folder), the folder if a Path.

    Raises:
        MissingFileError: no such folder, and no such shipped bundle.
        BundleError: a file is missing, unknown or altered; another schema; values that are not
            finite; parts that do not fit each other; the golden sample is not reproduced.
    """
    folder = locate(name_or_path)
    return _assemble(folder, *read_folder(folder))


def save_bundle(
    folder: Path,
    networks: Sequence[MilNetwork],
    config: Config,
    description: BundleDescription,
    encoder_sha256: str,
    *,
    reference: Mapping[str, Tensor] | None = None,
    golden: Tensor | None = None,
    replace: bool = False,
) -> Bundle:
    """Write a bundle and load it back, verified.

    The folder appears under its name only when it is complete.

    Args:
        folder: to be made.
        networks: the ensemble; either all or none carry a trained encoder. An encoder whose
            digest is ``encoder_sha256`` was not trained and is left out.
        config: the settings of the training.
        description: what else the manifest states.
        encoder_sha256: digest of the encoder's weights before training.
        reference: tensors for out-of-distribution checks.
        golden: input of the golden sample: embeddings (n, D) float32, or for trained encoders
            images uint8 (n, 3, S, S); None: drawn from a fixed seed.
        replace: True: a bundle that already stands there is replaced.

    Raises:
        ConfigError: the folder exists, the networks do not fit together, or a field of the
            description does not fit.
        BundleError: weights that are not finite or do not fit the configuration.
    """
    check_target(folder, replace=replace)
    trained = _encoders_trained(networks, encoder_sha256)
    tensors = {
        f"{i}.{name}": tensor
        for i, network in enumerate(networks)
        for name, tensor in state_tensors(network, with_encoder=trained).items()
    }
    cells = draw_input(networks[0], trained=trained) if golden is None else golden
    contents = {
        layout.WEIGHTS: save(tensors),
        layout.CONFIG: to_toml(_portable(config)).encode(),
        layout.CARD: description.card.encode(),
        layout.GOLDEN: golden_file(
            golden_sample(networks, description.temperature, cells), description.labels
        ),
    }
    if reference:
        contents[layout.REFERENCE] = save({k: v.contiguous() for k, v in reference.items()})
    record = {
        "name": config.model.encoder,
        "dim": networks[0].dim,
        "weights_sha256": encoder_sha256,
        "trained": trained,
    }
    manifest = _manifest(config, description, record, len(networks), contents)
    data = layout.to_bytes(manifest)
    _assemble(folder, manifest, hashlib.sha256(data).hexdigest(), contents)
    write_folder(folder, {**contents, layout.MANIFEST: data})
    return load_bundle(Path(folder))


def _assemble(folder: Path, manifest: Manifest, sha256: str, contents: dict[str, bytes]) -> Bundle:
    """The bundle from verified bytes: its parts compared with each other, its sample run."""
    config = parse_settings(contents[layout.CONFIG], folder)
    stated = (config.model.encoder, config.crops.size_px, config.crops.size_um)
    if stated != (manifest.encoder.name, manifest.size_px, manifest.size_um):
        raise BundleError(
            f"{folder}: config.toml and bundle.json name different encoders or crops{_REMEDY}"
        )
    tensors = {
        name: _tensors(contents[name], folder / name)
        for name in (layout.WEIGHTS, layout.GOLDEN, layout.REFERENCE)
        if name in contents
    }
    try:
        check_classes(contents[layout.GOLDEN], manifest.labels)
        networks = _networks(manifest, config.model, tensors[layout.WEIGHTS])
        reference = _checked_reference(tensors.get(layout.REFERENCE, {}), manifest)
    except (ConfigError, BundleError) as error:
        raise BundleError(f"{folder}: {error}{_REMEDY}") from error
    bundle = Bundle(
        folder=folder,
        manifest=manifest,
        sha256=sha256,
        config=config,
        networks=networks,
        reference=reference,
        golden=tensors[layout.GOLDEN],
        card=contents[layout.CARD].decode(errors="replace"),
    )
    if sha256 not in _REPRODUCED:
        bundle.check()
        _REPRODUCED.add(sha256)
    return bundle


def _tensors(data: bytes, path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file, as they are: names, shapes and values are not checked."""
    try:
        return dict(load(data))
    except (SafetensorError, ValueError, LookupError, TypeError, RuntimeError) as error:
        raise BundleError(f"{path} is no readable safetensors file: {error}") from error


def _checked_reference(tensors: dict[str, Tensor], manifest: Manifest) -> dict[str, Tensor]:
    """What is kept of the training patients, if anything; see :class:`Bundle`."""
    if not tensors:
        return tensors
    dim, classes = manifest.encoder.dim, len(manifest.labels)
    with torch.device("meta"):
        expected = {
            "mean": torch.empty(dim),
            "std": torch.empty(dim),
            "distances": torch.empty(_rows(tensors, "distances")),
        }
        if "um_px" in tensors:
            expected["um_px"] = torch.empty(_rows(tensors, "um_px"))
        if "images" in tensors:
            expected["images"] = torch.empty(_rows(tensors, "images"), dtype=torch.int64)
        if "held_out" in tensors:
            patients = _rows(tensors, "held_out")
            expected["held_out"] = torch.empty(patients, classes)
            expected["held_out_class"] = torch.empty(patients, dtype=torch.int64)
    check_tensors(tensors, expected, "reference of the training patients")
    if "um_px" in tensors and bool((tensors["um_px"] <= 0).any()):
        raise BundleError("reference of the training patients: scales out of range")
    if "held_out" in tensors:
        p, own = tensors["held_out"], tensors["held_out_class"]
        if bool((p < 0).any() | (p > 1).any() | (own < 0).any() | (own >= classes).any()):
            raise BundleError("reference of the training patients: values out of range")
    return tensors


def _rows(tensors: Mapping[str, Tensor], name: str) -> int:
    """Length of a tensor, at least 1, so that an empty or lacking one is found."""
    tensor = tensors.get(name)
    return max(1, len(tensor)) if tensor is not None and tensor.ndim else 1


def _networks(
    manifest: Manifest, config: ModelConfig, tensors: Mapping[str, Tensor]
) -> list[MilNetwork]:
    """The ensemble with its weights, in evaluation mode.

    Networks are built without memory: however large the manifest says that they are, nothing is
    allocated that the file of weights does not hold. Sizes of encoders come from our own table.
    """
    networks, used = [], 0
    for i in range(manifest.networks):
        own = {n.removeprefix(f"{i}."): t for n, t in tensors.items() if n.startswith(f"{i}.")}
        encoder = new_encoder(config.encoder) if manifest.encoder.trained else None
        dim = None if encoder is not None else manifest.encoder.dim
        with torch.device("meta"):
            network = build_network(config, manifest.labels, dim, encoder, types=_types_in(own))
        load_tensors(network, own)
        networks.append(network.eval())
        used += len(own)
    if used != len(tensors):
        raise BundleError(f"{layout.WEIGHTS} holds tensors of no network")
    return networks


def _types_in(tensors: Mapping[str, Tensor]) -> int:
    """Types of cell that a network deals cells to; 0 where it deals them to none."""
    found = [len(t) for name, t in tensors.items() if name.endswith("offsets") and t.ndim == 1]
    read = tensors.get("head.diseases.weight")  # by a cascade: clusters have one row more than that
    if not found or (read is not None and read.shape[-1:] != (found[0],)):
        return 0
    return found[0]


def _encoders_trained(networks: Sequence[MilNetwork], encoder_sha256: str) -> bool:
    """Whether the networks carry encoders with other weights than the named ones."""
    encoders = [n.encoder for n in networks if n.encoder is not None]
    if not networks or len(encoders) not in {0, len(networks)}:
        raise ConfigError(
            f"{len(networks)} networks, {len(encoders)} with an encoder: expected at least one "
            "network, and all or none with an encoder"
        )
    return any(weights_digest(encoder) != encoder_sha256 for encoder in encoders)


def _portable(config: Config) -> Config:
    """Without the path of a file on the machine that trained."""
    return config.model_copy(update={"model": config.model.model_copy(update={"weights": None})})


def _manifest(
    config: Config,
    description: BundleDescription,
    encoder: Mapping[str, Any],
    networks: int,
    contents: Mapping[str, bytes],
) -> Manifest:
    try:
        return Manifest(
            schema_version=layout.SCHEMA,
            name=description.name,
            version=description.version,
            requires_millie=description.requires_millie,
            created=description.created or datetime.now(UTC).isoformat(timespec="seconds"),
            labels=list(description.labels),
            positive=description.positive,
            threshold=description.threshold,
            temperature=description.temperature,
            size_px=config.crops.size_px,
            size_um=config.crops.size_um,
            encoder=EncoderRecord(**encoder),
            networks=networks,
            qc=dict(description.qc),
            provenance=dict(description.provenance),
            golden_tolerance=TOLERANCE,
            files={name: file_record(data) for name, data in contents.items()},
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"description of the bundle: {place}: {first['msg']}, got {first['input']!r}"
        ) from error
