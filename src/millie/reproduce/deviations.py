"""Where a profile cannot be what it is named after, and what stands in its place.

Owns the sentences that go into the column 'protocol differences'; the settings themselves stand in
``millie/profiles``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millie.config import load, profiles
from millie.errors import MissingPackageError, MissingWeightsError
from millie.models.encoders import ENCODERS

if TYPE_CHECKING:
    from millie.config import Config

STAND_IN = "efficientnet_lite0"
"""The encoder whose ImageNet weights can be had without a hub, by the extra ``imagenet``."""

_COMPARED = ("reading", "segmentation", "crops", "model", "augment", "training")
_SET_ELSEWHERE = {("model", "aggregator"), ("training", "colour_transfer")}

DEVIATIONS: dict[str, tuple[str, ...]] = {
    "default": (
        "our own method: other segmentation, isolated cells, fusion by kind of cell",
        "its encoder was trained on cell types of PBC: healthy promyelocytes do not test it",
        "the encoder has learnt from apl_aml patients, test parts included, AML and APL as one",
    ),
    "acute-leukaemia": (
        "our own method: other segmentation, isolated cells, diseases by shares of types of cell",
        "its encoder was trained on cell types of PBC: healthy promyelocytes do not test it",
        "its encoder has learnt blasts from the diagnoses of these sets, test parts included",
    ),
    "whole-crop": (
        "our own method: crops of a fixed size in um; other segmentation, encoder and optimiser",
    ),
    "paper": (
        "pool5 maps are averaged to 512 features; the paper does not say how they become a vector",
        "widths of the FC layers (1,024 and 512), patience and momentum are not in the paper",
        "test patients are scored once, without augmentation; the paper augments at test time",
        "200 px are kept as 200 px: the 12.8 um that the paper states for them is wrong",
        "eight patients per step; the paper does not state the step size",
    ),
    "released-code": (
        "crops stay at 200 px; the code resizes them to 128",
        "pool5 maps are averaged to 512 features; the code flattens them to 8,192",
        "input is normalised for the weights in use; the code subtracts means in BGR, 0 to 255",
        "both flips, no rotation; the code rotates by 90 degrees and flips one way",
        "classes are weighted; in the code they alternate",
        "all cells at test; the code uses up to 500",
        "folds by patient; the code tests on every third file of a listing",
        "the background component is not cropped as a cell",
    ),
}


def with_weights(config: Config) -> tuple[Config, tuple[str, ...]]:
    """The configuration with an encoder whose weights are on this machine, and what that changed.

    An encoder that starts from random weights says nothing about the method; where its pretrained
    weights cannot be had, :data:`STAND_IN` takes its place.

    Raises:
        MissingPackageError: nor can the weights of the stand-in be had.
    """
    wanted = config.model
    spec = ENCODERS.get(wanted.encoder)
    if spec is None or spec.fetch is None or not wanted.pretrained or wanted.weights is not None:
        return config, ()
    try:
        spec.fetch()
    except MissingWeightsError as error:
        _check_stand_in(error)
        model = wanted.model_copy(update={"encoder": STAND_IN})
        reason = str(error).partition(". ")[0]
        told = f"{STAND_IN} in place of {wanted.encoder}, whose ImageNet weights are unavailable"
        return config.model_copy(update={"model": model}), (f"{told} ({reason})",)
    return config, ()


def _check_stand_in(error: MissingWeightsError) -> None:
    """Say both ways out before hours of cutting, where neither encoder can be had.

    Raises:
        MissingPackageError: the packages of the stand-in are not installed.
    """
    fetch = ENCODERS[STAND_IN].fetch
    try:
        if fetch is not None:
            fetch()
    except MissingPackageError as missing:
        raise MissingPackageError(f"{error}. To use {STAND_IN} instead: {missing}") from missing


def of_profile(profile: str, config: Config) -> tuple[str, ...]:
    """The sentences of a profile, and every setting that the user chose otherwise.

    Settings that an experiment itself sets (folds, class, colours) are not counted.

    Args:
        profile: name.
        config: as asked for, before :func:`with_weights`, which has its own sentence.
    """
    told = DEVIATIONS.get(profile, (f"profile {profile}: see its settings",))
    if profile not in profiles():
        return told
    own, used = load(profile=profile).model_dump(), config.model_dump()
    changed = [
        f"{stage}.{field} = {_shown(used[stage][field])} ({_shown(value)} in the profile)"
        for stage in _COMPARED
        for field, value in own[stage].items()
        if used[stage][field] != value and (stage, field) not in _SET_ELSEWHERE
    ]
    return (*told, *changed)


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
