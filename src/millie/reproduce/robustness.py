"""How far a result holds when the images get worse and the bags larger or smaller.

Owns the changes of a crop (blur, JPEG quality, hue, scale), the sub-bags of fixed size, and
``robustness.json``, which the study report reads. The folds of the first repeat are trained again;
their test patients are scored with changed crops. Nothing is chosen by the outcome.

Max fusion over all cells rises with their number: the share of false alarms at a fixed number of
cells says how much of a call is the size of its bag.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from millie.bags.loading import apply_background, background_colours, sample_cells, to_tensor
from millie.bags.store import BagReader, Store
from millie.files import write_text
from millie.inference.runtime import feature_runtime
from millie.learning.ensemble import Cast, Ensemble, Material, fit_ensemble, score_bag
from millie.learning.material import open_material, participants
from millie.learning.sampling import CellSource, DrawnBag, EmbeddedCells, whole_bag
from millie.learning.splits import Fold, load_splits
from millie.learning.train import Progress, silent
from millie.models.encoders import build_encoder
from millie.statistics.intervals import Estimate, delong_interval, patient_bootstrap
from millie.statistics.metrics import both_classes, choose_positive
from millie.synthetic.changes import blur, compress, turn_hue

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from millie.bags.loading import Background
    from millie.config import Config
    from millie.inference.runtime import FeatureRuntime

    Crops = NDArray[np.uint8]

CELLS = 20
"""Cells of a patient whose crops are changed; a fixed draw."""

BAG_SIZES = (10, 25, 50, 200, 1000)
"""Cells a sub-bag."""

_DRAWS = 20
_HALF = 128
_SEED = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One way in which images differ between laboratories.

    Attributes:
        name: of the curve.
        x_label: of the strength, with its unit.
        strengths: the first changes nothing.
        apply: crop uint8 RGB (S, S, 3) and strength -> the same shape.
        moves: whether it moves what is in the crop, so that the cell's mask must move too.
    """

    name: str
    x_label: str
    strengths: tuple[float, ...]
    apply: Callable[[Crops, float], Crops]
    moves: bool = False


def zoom(image: Crops, factor: float) -> Crops:
    """The cell larger (above 1) or smaller in a crop of the same size; 1 changes nothing."""
    if factor == 1:
        return image
    side = image.shape[0]
    centre = ((side - 1) / 2, (side - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, 0, factor)
    return np.asarray(
        cv2.warpAffine(image, matrix, (side, side), borderMode=cv2.BORDER_REFLECT_101)
    )


CHANGES = (
    Change("Blur", "blur, standard deviation in px of the crop", (0, 0.5, 1, 2, 3), blur),
    Change("JPEG quality", "quality", (100, 90, 70, 50, 30), compress),
    Change("Hue", "hue rotation, fraction of the circle", (0, 0.02, 0.04, 0.08), turn_hue),
    Change("Scale", "scale factor", (1, 0.8, 0.9, 1.1, 1.25), zoom, moves=True),
)


class ChangedCells:
    """Crops in memory as a source of cells for an encoder that was trained.

    Args:
        crops: uint8 (n, S, S, 3) by patient.
    """

    images = True

    def __init__(self, crops: Mapping[str, Crops]) -> None:
        self._crops = crops

    def count(self, patient: str) -> int:
        """Number of cells of a patient."""
        return len(self._crops[patient])

    def cells(self, patient: str, indices: NDArray[np.int64]) -> torch.Tensor:
        """Crops (n, 3, S, S) in 0 to 1."""
        return to_tensor(self._crops[patient][indices])

    def digest(self, patients: Sequence[str]) -> str:
        """SHA-256 (hex) over patients and crops."""
        found = hashlib.sha256()
        for patient in patients:
            found.update(patient.encode(errors="surrogatepass") + self._crops[patient].tobytes())
        return found.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class _Trained:
    """A fold of the first repeat, trained again: its networks and its test patients."""

    ensemble: Ensemble
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Setting:
    """What all curves share."""

    store: Store
    config: Config
    material: Material
    runtime: FeatureRuntime | None
    labels: Mapping[str, str]
    classes: tuple[str, ...]
    positive: str
    folds: tuple[_Trained, ...]


def measure_robustness(
    store: Store,
    config: Config,
    study: Path,
    progress: Progress = silent,
    changes: Sequence[Change] = CHANGES,
    bag_sizes: Sequence[int] = BAG_SIZES,
) -> Path:
    """Measure all curves and write ``robustness.json`` into the study's folder.

    Args:
        store: the bags of the study.
        config: its settings.
        study: folder of the cross-validation.
        progress: called after each strength of each change.
        changes: of the crops.
        bag_sizes: cells a sub-bag; patients with fewer cells do not count at that size.

    Raises:
        MissingFileError: no ``splits.json``.
        TrainingError: the loss diverged.
    """
    setting = _prepare(store, config, study, progress)
    unchanged = _auc(setting, _changed_scores(setting, None, 0)) if changes else None
    curves = [_change_curve(setting, change, unchanged, progress) for change in changes]
    for called, measure in ((False, "false-positive rate"), (True, "sensitivity")):
        curve = _size_curve(setting, bag_sizes, measure, positive=called)
        curves += [curve] if curve["points"] else []
    protocol = (
        f"The folds of the first repeat were retrained; at most {CELLS} cells per patient were "
        f"changed; sub-bags: {_DRAWS} draws per patient."
        + (" No colour transfer." if config.training.colour_transfer else "")
    )
    text = json.dumps({"protocol": protocol, "curves": curves}, indent=1, allow_nan=False)
    return write_text(study / "robustness.json", text + "\n")


def _prepare(store: Store, config: Config, study: Path, progress: Progress) -> _Setting:
    who = participants(store)
    splits = load_splits(study / "splits.json")
    positive = choose_positive(who.classes, list(who.labels.values()), config.evaluation.positive)
    material, _ = open_material(store, sorted(who.labels), config, progress)
    frozen = material.new_encoder is None
    runtime = None
    if frozen:
        encoder = build_encoder(config.model, seed=config.training.seed)
        runtime = feature_runtime(encoder, config.prediction)
    folds = []
    for fold in (a for a in splits.assignments if a.repeat == 0):
        part = tuple(sorted((*fold.train, *fold.validation)))
        cast = Cast(who.classes, positive, who.labels, part, _seed(config, fold), fold.validation)
        ensemble = fit_ensemble(material, cast, config, progress=progress)
        folds.append(_Trained(ensemble, fold.test))
    return _Setting(
        store, config, material, runtime, who.labels, who.classes, positive, tuple(folds)
    )


def _seed(config: Config, fold: Fold) -> int:
    return config.training.seed * 100_003 + fold.fold


def _change_curve(
    setting: _Setting, change: Change, unchanged: Estimate | None, progress: Progress
) -> dict[str, Any]:
    points = []
    for number, strength in enumerate(sorted(change.strengths)):
        progress(f"robustness {change.name}", number, len(change.strengths))
        found = unchanged if strength == change.strengths[0] else None
        found = found or _auc(setting, _changed_scores(setting, change, strength))
        points.append(_point(strength, found))
    progress(f"robustness {change.name}", len(points), len(points))
    return {"name": change.name, "x_label": change.x_label, "measure": "ROC AUC", "points": points}


def _changed_scores(setting: _Setting, change: Change | None, strength: float) -> dict[str, float]:
    """Probability of the positive class of every test patient with changed crops."""
    scores = {}
    for trained in setting.folds:
        for patient in trained.test:
            with BagReader(setting.store.path_of(patient), verify=False) as reader:
                crops = changed_crops(reader, change, strength, setting.config.model.background)
            scores[patient] = _score(setting, trained, _source(setting, patient, crops), patient)
    return scores


def _source(setting: _Setting, patient: str, crops: Crops) -> CellSource:
    if setting.runtime is None:
        return ChangedCells({patient: crops})
    size = setting.config.prediction.batch_size
    runtime = setting.runtime
    parts = [runtime(crops[i : i + size]) for i in range(0, len(crops), size)]
    return EmbeddedCells({patient: np.concatenate(parts)})


def changed_crops(
    reader: BagReader, change: Change | None, strength: float, background: Background
) -> Crops:
    """A fixed draw of a bag's crops, changed as a film would be, then as the encoder sees them.

    The surroundings are dealt with after the change: a blurred film is blurred before its cells
    are isolated, and its background has turned hue with it.
    """
    rng = np.random.default_rng(_SEED)
    chosen = sorted(sample_cells(reader.n_cells, CELLS, rng).tolist())
    images = np.stack([reader.image(i) for i in chosen])
    masks = np.concatenate([reader.masks(i, i + 1) for i in chosen])
    colours = np.concatenate([background_colours(reader, i, i + 1) for i in chosen])
    if change is not None:
        images = np.stack([change.apply(image, strength) for image in images])
        colours = np.stack([_changed_colour(change, strength, colour) for colour in colours])
        if change.moves:
            masks = np.stack([change.apply(_as_image(m), strength)[..., 0] for m in masks])
            masks = np.asarray(masks >= _HALF, np.uint8)
    return np.asarray(apply_background(images, masks, background, colours))


def _changed_colour(
    change: Change, strength: float, colour: NDArray[np.float32]
) -> NDArray[np.float32]:
    """An empty background of this colour after the change."""
    patch = np.broadcast_to(np.rint(colour).astype(np.uint8), (16, 16, 3))
    changed = change.apply(np.ascontiguousarray(patch), strength)
    return np.asarray(changed.mean(axis=(0, 1)), np.float32)


def _as_image(mask: Crops) -> Crops:
    """A mask as an image (S, S, 3) of 0 and 255."""
    return np.repeat(np.where(mask > 0, np.uint8(255), np.uint8(0))[..., None], 3, axis=2)


def _score(
    setting: _Setting,
    trained: _Trained,
    source: CellSource,
    patient: str,
    bag: DrawnBag | None = None,
) -> float:
    scored = score_bag(
        trained.ensemble.networks,
        source,
        bag or whole_bag(source, patient),
        setting.classes,
        temperature=trained.ensemble.temperature,
        encoder=setting.config.model.encoder,
        config=setting.config.prediction,
        explain=False,
    )
    return float(scored.bag[setting.classes.index(setting.positive)])


def _auc(setting: _Setting, scores: Mapping[str, float]) -> Estimate:
    patients = sorted(scores)
    truth = np.array([setting.labels[p] == setting.positive for p in patients], bool)
    score = np.array([scores[p] for p in patients])
    if not both_classes(truth):
        return Estimate(0.5, 0.0, 1.0, "one class only")
    return delong_interval(truth, score, setting.config.evaluation.confidence)


def _size_curve(
    setting: _Setting, sizes: Sequence[int], measure: str, *, positive: bool
) -> dict[str, Any]:
    """Share of sub-bags called positive, among patients with or without the class."""
    groups = _size_groups(setting, sizes, positive=positive)
    points = []
    for size, patients in groups.items():
        shares = _called_shares(setting, size, patients)
        points.append({**_point(size, _mean(shares, setting.config)), "n": len(shares)})
    counted = ", ".join(f"{point['x']:.0f}: {point['n']}" for point in points)
    return {
        "name": f"{measure.capitalize()} by cells per bag",
        "x_label": f"cells per bag (patients: {counted})",
        "measure": measure,
        "points": points,
    }


def _size_groups(
    setting: _Setting, sizes: Sequence[int], *, positive: bool
) -> dict[int, frozenset[str]]:
    """The patients that count at each size, two or more.

    Up to the largest size that half of them reach the patients are the same, so that a curve shows
    what cells do and not who has them; beyond it those that have enough.
    """
    count = setting.material.source.count
    having = [p for p, label in setting.labels.items() if (label == setting.positive) == positive]
    common = max((s for s in sizes if 2 * sum(count(p) >= s for p in having) >= len(having)),
                 default=0)  # fmt: skip
    groups = {s: frozenset(p for p in having if count(p) >= max(s, common)) for s in sizes}
    return {size: patients for size, patients in groups.items() if len(patients) > 1}


def _called_shares(setting: _Setting, size: int, patients: frozenset[str]) -> list[float]:
    """For each of these patients the share of its sub-bags that are called."""
    source = setting.material.source
    rng = np.random.default_rng(_SEED)
    shares = []
    for trained in setting.folds:
        for patient in (p for p in trained.test if p in patients):
            count = source.count(patient)
            calls = []
            for _ in range(1 if count == size else _DRAWS):
                chosen = np.sort(rng.choice(count, size, replace=False))
                p = _score(setting, trained, source, patient, DrawnBag(patient, chosen))
                calls.append(p >= trained.ensemble.threshold)
            shares.append(float(np.mean(calls)))
    return shares


def _mean(shares: Sequence[float], config: Config) -> Estimate:
    values = np.array(shares)
    return patient_bootstrap(
        ["all"] * len(values),
        lambda drawn: float(values[drawn].mean()),
        config.evaluation.bootstrap,
        np.random.default_rng(config.evaluation.seed),
        config.evaluation.confidence,
    )


def _point(x: float, found: Estimate) -> dict[str, Any]:
    return {"x": float(x), "value": found.value, "low": found.low, "high": found.high}
