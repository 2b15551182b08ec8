"""From a bag to a patient's call, in the memory of one batch of crops and all vectors.

One pass over the bag: decode, encode, score each cell alone, fuse. Nothing is random: the same bag,
bundle and settings give the same prediction. This module owns that pass; the explanation, the gates
and the runtime have their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from millie.bags.loading import apply_background, background_colours
from millie.bags.store import BagReader
from millie.config import PredictionConfig
from millie.errors import ConfigError, NoCellsError
from millie.inference.alone import cells_of
from millie.inference.calls import decide
from millie.inference.embed import Progress, ahead
from millie.inference.explain import StreamedBag, find_winners
from millie.inference.gates import failed_gates, measures, reference_distance
from millie.inference.immature import immature
from millie.inference.magnification import doubtful_scale
from millie.inference.operating import bundle_rule, not_excluded
from millie.inference.quality import QualityMeter, SampleQuality
from millie.inference.resampling import probability_ranges
from millie.inference.runtime import FeatureRuntime, feature_runtime
from millie.inference.screen import Screen
from millie.models.bundle import Bundle
from millie.models.encoder import CellTypes
from millie.models.external import vectors_of
from millie.types import Prediction, Reason, Winner


def bundle_runtimes(
    bundle: Bundle, config: PredictionConfig, weights: Path | None = None
) -> list[FeatureRuntime]:
    """What computes a bundle's features: one runtime, or one for each network with its own encoder.

    None for a model of vectors: they come with the bag.

    Args:
        bundle: the model.
        config: which runtime.
        weights: file with the pretrained weights, where they cannot be had by name.

    Raises:
        BundleError: the encoder on this machine has other weights than the bundle names.
        MissingWeightsError: they are not on this machine.
        MissingPackageError: openvino was asked for and is not installed.
    """
    if vectors_of(bundle.config.model.encoder):
        return []
    return [feature_runtime(encoder, config) for encoder in bundle.encoders(weights)]


def predict_bag(
    bundle: Bundle,
    reader: BagReader,
    runtime: FeatureRuntime | Sequence[FeatureRuntime],
    config: PredictionConfig,
    progress: Progress | None = None,
    screen: Screen | None = None,
    types: CellTypes | None = None,
) -> Prediction:
    """Call a patient.

    Args:
        bundle: the model.
        reader: the patient's bag, with crops of the bundle's size.
        runtime: of the bundle, see :func:`bundle_runtimes`; a single one, as many as networks, or
            none for a bag of vectors.
        config: batch size, gates, winners.
        progress: called after each batch of cells.
        screen: asked first whether any of the model's diseases is there; None: nobody is.
        types: of the encoder; None: it is not told what a cell looks like.

    Raises:
        NoCellsError: the bag is empty.
        ConfigError: crops of another size, vectors of another width, the one in place of the
            other, or runtimes that do not fit the bundle.
        StoreError: the bag is damaged.
        BundleError: a feature is not finite, or an unknown limit in the bundle.
    """
    runtimes = _checked(bundle, reader, runtime)
    seen = _pass(bundle, reader, runtimes, config, progress)
    manifest = bundle.manifest
    quality = seen.meter.result(reference_distance(bundle.reference, seen.mean))
    probabilities = dict(zip(bundle.labels, seen.probabilities.tolist(), strict=True))
    scale = doubtful_scale(reader, bundle.reference)
    call = call_of(bundle, probabilities, seen.features, quality, scale, config, screen)
    looks = _looks(reader, types.looks_like(seen.features[0])) if types else ()
    return Prediction(
        patient=reader.patient_id,
        state=call.state,
        reasons=call.reasons,
        label=bundle.labels[int(np.argmax(seen.probabilities))],
        probabilities=probabilities,
        ranges=call.ranges,
        cell_probabilities=seen.cell_probabilities,
        winners=_named(seen.winners, looks),
        n_cells=quality.n_usable,
        model=bundle.name,
        model_sha256=bundle.sha256,
        quality=measures(quality, manifest.qc, config, bundle.reference),
        p_values=not_excluded(bundle, probabilities),
        supported=bundle_rule(bundle, config).supported,
        cell_types=looks,
    )


@dataclass(frozen=True, slots=True)
class Call:
    """What is said of a sample.

    Attributes:
        state: as in :class:`millie.types.Prediction`; also ``reasons`` and ``ranges``.
    """

    state: str
    reasons: tuple[Reason, ...]
    ranges: dict[str, tuple[float, float]]


def call_of(
    bundle: Bundle,
    probabilities: Mapping[str, float],
    features: Sequence[Tensor],
    quality: SampleQuality,
    scale: tuple[Reason, ...],
    config: PredictionConfig,
    screen: Screen | None,
) -> Call:
    """From what was measured of a sample to its state: gates, screen, interval, immature cells.

    Args:
        bundle: the model.
        probabilities: of the whole sample, by class.
        features: vectors (N, D) of its cells, one a runtime.
        quality: of images and cells, with the distance from the training patients.
        scale: why the size of the cells is doubtful; empty: it is not.
        config: operating point and gates.
        screen: asked first whether any of the model's diseases is there; None: nobody is.
    """
    manifest = bundle.manifest
    failed = failed_gates(quality, manifest.qc, config, bundle.reference) + scale
    young = None  # shares of types mean little where a gate of quality failed
    if not failed:
        young = immature(bundle.networks[0], manifest.encoder.name, features[0], manifest.qc)
    doubt, ruled_out = screen.ask(features, bundle.labels) if screen else ((), ())
    ranges = probability_ranges(bundle.networks, features, bundle.probabilities, probabilities)
    state, reasons = decide(
        probabilities, bundle_rule(bundle, config), quality, failed + doubt, config, ranges,
        elsewhere=ruled_out, immature=young,
    )  # fmt: skip
    return Call(state, reasons, ranges)


def _looks(reader: BagReader, types: Sequence[str]) -> tuple[str, ...]:
    """Types of whole cells; smudged, cut and not outlined ones look like others and get none."""
    if not types:
        return ()
    return tuple(
        "" if cell.smudge or cell.at_border or cell.quality == 0 else name
        for cell, name in zip(reader.cells, types, strict=True)
    )


def _named(
    winners: dict[str, tuple[Winner, ...]], looks: Sequence[str]
) -> dict[str, tuple[Winner, ...]]:
    """Winners with the type of cell that each looks like, where that is known."""
    if not looks:
        return winners
    return {
        label: tuple(replace(w, looks_like=looks[w.cell]) for w in cells)
        for label, cells in winners.items()
    }


def sample_quality(
    bundle: Bundle,
    reader: BagReader,
    runtime: FeatureRuntime | Sequence[FeatureRuntime],
    config: PredictionConfig,
) -> SampleQuality:
    """What the gates of a bundle see of a bag; raises as :func:`predict_bag`."""
    seen = _pass(bundle, reader, _checked(bundle, reader, runtime), config, None)
    return seen.meter.result(reference_distance(bundle.reference, seen.mean))


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A bag after the pass: probabilities (C,) and (N, C), winners, features (N, D) by runtime."""

    probabilities: NDArray[np.float64]
    cell_probabilities: NDArray[np.float32]
    winners: dict[str, tuple[Winner, ...]]
    meter: QualityMeter
    features: tuple[torch.Tensor, ...]

    @property
    def mean(self) -> torch.Tensor:
        """Mean features (D,), by the first runtime."""
        return self.features[0].double().mean(dim=0)


def _pass(
    bundle: Bundle,
    reader: BagReader,
    runtimes: Sequence[FeatureRuntime],
    config: PredictionConfig,
    progress: Progress | None,
) -> _Seen:
    bags = [StreamedBag(network, reader.n_cells) for network in bundle.networks]
    cell_probabilities = np.zeros((reader.n_cells, len(bundle.labels)), np.float32)
    meter = QualityMeter.of(reader)
    kept: list[list[torch.Tensor]] = [[] for _ in runtimes or (None,)]
    for start, features in _features(bundle, reader, runtimes, config.batch_size, meter):
        own = features if len(features) == len(bags) else features * len(bags)
        logits = torch.stack([bag.add(start, f) for bag, f in zip(bags, own, strict=True)])
        stop = start + len(features[0])
        alone = cells_of(bundle, bundle.probabilities(logits), own[0])
        cell_probabilities[start:stop] = alone.numpy()
        for chunks, chunk in zip(kept, features, strict=True):
            chunks.append(chunk)
        if progress is not None:
            progress(stop, reader.n_cells)
    probabilities = bundle.probabilities(torch.stack([bag.logits() for bag in bags]))
    return _Seen(
        probabilities=probabilities.numpy(),
        cell_probabilities=cell_probabilities,
        winners=find_winners(bags, bundle.labels, config.winners),
        meter=meter,
        features=tuple(torch.cat(chunks) for chunks in kept),
    )


def _features(
    bundle: Bundle,
    reader: BagReader,
    runtimes: Sequence[FeatureRuntime],
    batch_size: int,
    meter: QualityMeter,
) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """Features (n, D) of batches of cells by each runtime, or as the bag brings them."""
    if reader.holds_vectors:
        vectors = torch.from_numpy(reader.vectors())
        for start in range(0, len(vectors), batch_size):
            yield start, [vectors[start : start + batch_size]]
        return
    for start, images in ahead(_crops(bundle, reader, batch_size, meter)):
        yield start, [torch.from_numpy(run(images)) for run in runtimes]


def _crops(
    bundle: Bundle, reader: BagReader, batch_size: int, meter: QualityMeter
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Batches as the encoder shall see them; the meter sees them untouched."""
    for start in range(0, reader.n_cells, batch_size):
        images = reader.images(start, start + batch_size)
        masks = reader.masks(start, start + batch_size)
        meter.add(images, masks)
        colours = background_colours(reader, start, start + batch_size)
        yield start, apply_background(images, masks, bundle.config.model.background, colours)


def _checked(
    bundle: Bundle, reader: BagReader, runtime: FeatureRuntime | Sequence[FeatureRuntime]
) -> list[FeatureRuntime]:
    runtimes = list(runtime) if isinstance(runtime, Sequence) else [runtime]
    manifest = bundle.manifest
    if reader.n_cells == 0:
        raise NoCellsError(
            f"the bag of patient '{reader.patient_id}' has no cells: nothing to call"
        )
    if reader.holds_vectors or vectors_of(bundle.config.model.encoder):
        _check_vectors(bundle, reader)
        return []
    got = (reader.meta.size_px, reader.meta.size_um)
    if got != (manifest.size_px, manifest.size_um):
        raise ConfigError(
            f"{reader.path} holds crops of {got[0]} px ({got[1]} um), but {bundle.name} expects "
            f"{manifest.size_px} px ({manifest.size_um} um): segment again with its settings"
        )
    dims = {r.dim for r in runtimes} | {network.dim for network in bundle.networks}
    if len(runtimes) not in {1, len(bundle.networks)} or len(dims) != 1:
        raise ConfigError(
            f"{len(runtimes)} runtimes for {len(bundle.networks)} networks with features "
            f"{sorted(dims)}: take them from bundle_runtimes"
        )
    return runtimes


def _check_vectors(bundle: Bundle, reader: BagReader) -> None:
    """Refuse pictures for a model of vectors, vectors for a model of pictures, another width."""
    name, dim = vectors_of(bundle.config.model.encoder), bundle.manifest.encoder.dim
    wanted = f"{dim} numbers per cell by '{name}'" if name else "pictures of cells"
    got = f"{reader.vector_dim} numbers per cell" if reader.holds_vectors else "pictures of cells"
    if not name or got != f"{dim} numbers per cell":
        raise ConfigError(
            f"{reader.path} holds {got}, but {bundle.name} expects {wanted}: use the model that "
            "was trained on such cells"
        )
