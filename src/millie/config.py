"""Settings: one frozen model a stage, each field with its unit and the reason for its default.

A configuration is read from TOML (tables named like the stages), changed by ``stage.field=value``
words, written back as TOML and digested. Unknown keys are refused. This module owns no defaults of
published methods: those are the named profiles in ``millie/profiles/*.toml``.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from millie.errors import ConfigError, MissingFileError


class _Stage(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class ReadingConfig(_Stage):
    """Limits applied to a file's header before anything is decoded."""

    max_field_megapixels: float = Field(50, gt=0, description="1e6 px; a 5 MP camera field is 5.")
    max_file_megabytes: float = Field(200, gt=0, description="1e6 bytes on disk.")
    max_expansion: float = Field(
        200, gt=1, description="Decoded bytes per byte on disk; a decompression bomb is above it."
    )
    max_cell_side_um: float = Field(
        60, gt=0, description="An image whose sides are below this is taken for a single-cell crop."
    )
    max_cell_side_px: int = Field(
        420, ge=32, description="The same where um/px is unknown; CellaVision crops are 360 px."
    )
    slide_um_px: float = Field(
        0.112,
        ge=0.02,
        le=1,
        description="um/px at which fields of a whole slide are cut: at the coarsest level that is "
        "as fine; a crop of 25 um on 224 px has 0.112.",
    )
    slide_cells: int = Field(
        500, ge=1, description="Cells of a whole slide after which no further field of it is cut."
    )
    slide_fields: int = Field(
        400, ge=1, description="Fields of 0.2 x 0.2 mm cut of a whole slide at most."
    )

    def tightened(self) -> ReadingConfig:
        """These limits where they are stricter than the defaults, the defaults where not."""
        names = ("max_field_megapixels", "max_file_megabytes", "max_expansion")
        ours = ReadingConfig()
        strict = {name: min(getattr(self, name), getattr(ours, name)) for name in names}
        return self.model_copy(update=strict)


class SegmentationConfig(_Stage):
    """How leukocytes are found in a field."""

    method: Literal["default", "paper", "released-code"] = Field(
        "default", description="`paper`: HSV saturation, Otsu, opening, watershed (Manescu 2023)."
    )
    um_px: float | None = Field(
        None, gt=0, description="um/px for images that carry none; None: estimate from red cells."
    )
    red_cell_diameter_um: float = Field(
        7.2, gt=0, description="um; mean of normal adult red cells."
    )
    min_nucleus_um2: float = Field(
        12.0, gt=0, description="um2; below it lie platelets and debris, a small lymphocyte has 30."
    )
    drop_border: bool = Field(
        default=False, description="Leave out cells cut by the image's edge instead of flagging."
    )


class CropConfig(_Stage):
    """The picture of a cell that enters its bag."""

    size_px: int = Field(224, ge=16, le=1024, description="Side of the square crop in pixels.")
    size_um: float = Field(
        25.0, ge=0, le=1000, description="Side in um (a promyelocyte reaches 25); 0: native pixels."
    )
    keep_smudge: bool = Field(
        default=True, description="Smudge cells stay in the bag, flagged; False leaves them out."
    )
    keep_unoutlined: bool = Field(
        default=False,
        description="Single-cell crops in which no cell could be outlined stay. False: they are "
        "named only, because without an outline there is nothing to isolate.",
    )


class ModelConfig(_Stage):
    """Encoder, fusion and head (paper, Methods)."""

    encoder: str = Field(
        "blood_cell",
        description="Name in the table of encoders. blood_cell has learnt normal cell types and "
        "changes of stain, and no diagnosis.",
    )
    weights: Path | None = Field(
        None,
        description="File with the encoder's pretrained weights, or one of the Hugging Face Hub as "
        "hub:OWNER/NAME@REVISION/FILE#SHA256 (extra hub); None: by name.",
    )
    pretrained: bool = Field(default=True, description="False: start from random weights.")
    aggregator: str = Field(
        "type_shares",
        description="Name in the table of aggregators. type_shares: which disease by shares of "
        "types of cell, which subtype by how the cells differ from the patient's own mature ones. "
        "Paper: max.",
    )
    top_k: int = Field(5, ge=1, description="Cells averaged by the top-k aggregator.")
    prototypes: int = Field(
        5,
        ge=1,
        le=1024,
        description="Kinds of cell that type_shares and ghost_vlad keep apart; blood_cell knows 5.",
    )
    subtypes: tuple[str, ...] = Field(
        ("AML", "APL"),
        max_length=16,
        description="type_shares: classes of one disease. Diseases are told apart by shares of "
        "types of cell, its subtypes by how the cells look.",
    )
    hidden: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = Field(
        (),
        max_length=16,
        description="Widths of the head's FC layers; none: one linear layer, which is what a "
        "hundred patients bear. The paper does not state its own. Not used by type_shares.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Before each FC layer of the head.")
    background: Literal["keep", "mask", "isolate", "only"] = Field(
        "isolate",
        description="keep: the whole crop; mask: grey around the cell; isolate: white around it, "
        "because surroundings alone can give the class away; only: the surroundings (control).",
    )


class AugmentConfig(_Stage):
    """Ranges of the random augmentation (paper: rotation, flips, hue, gamma, noise)."""

    rotation_degrees: float = Field(180, ge=0, le=180, description="Uniform in +- this.")
    flip: bool = Field(default=True, description="Mirror with probability one half on each axis.")
    scale: float = Field(0.1, ge=0, lt=1, description="Zoom, uniform in 1 +- this.")
    hue: float = Field(0.03, ge=0, le=0.5, description="Turn of hue, fraction of the circle.")
    saturation: float = Field(0.2, ge=0, lt=1, description="Factor, uniform in 1 +- this.")
    gamma: float = Field(0.25, ge=0, lt=1, description="Exponent, log-uniform in 1/(1+g) .. 1+g.")
    noise: float = Field(0.02, ge=0, lt=1, description="Largest sd of Gaussian noise, intensity 1.")


class TrainingConfig(_Stage):
    """Optimisation."""

    mode: Literal["frozen", "end_to_end"] = Field(
        "frozen",
        description="frozen: cached embeddings, seconds on a CPU; end_to_end: all weights.",
    )
    cells_per_step: int = Field(
        50, ge=1, description="Random cells of a patient in a step (paper)."
    )
    vary_cells: bool = Field(
        default=False,
        description="Draw the number of cells log-uniformly from 1 to cells_per_step instead: "
        "probabilities then depend less on the size of a bag.",
    )
    patients_per_step: int = Field(
        8, ge=1, description="Bags in a step, of each process where several train."
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="Where an encoder is trained; frozen embeddings stay on the CPU."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of an encoder's activations in training; weights stay float32."
    )
    optimiser: Literal["sgd", "adamw"] = Field("adamw", description="The paper: sgd.")
    learning_rate: float = Field(3e-3, gt=0, description="Paper: 3e-4.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD only.")
    weight_decay: float = Field(0.3, ge=0, description="AdamW: decoupled; SGD: L2.")
    max_epochs: int = Field(100, ge=1, description="Paper: 100.")
    patience: int = Field(20, ge=1, description="Epochs without a better validation loss.")
    validation_fraction: float = Field(
        0.2, ge=0, lt=0.6, description="Of the training patients, stratified; early stopping."
    )
    class_weights: bool = Field(default=True, description="Weigh classes by inverse frequency.")
    exact_gradient: bool = Field(
        default=False,
        description="Max fusion only: find winners without gradient, then run those with it.",
    )
    colour_transfer: bool = Field(
        default=False,
        description="Cross-validation only: give crops of all sources (site and scanner) the "
        "colours of the largest one, by statistics of each training part (Reinhard 2001).",
    )
    ensemble: int = Field(
        5,
        ge=1,
        le=20,
        description="Networks from different seeds, averaged; each leaves a part of the patients "
        "out, which gives the threshold and the calibration.",
    )
    soften_only: bool = Field(
        default=False,
        description="Calibration never sharpens probabilities: for cohorts in which a class comes "
        "from laboratories of its own, where patients held out look more alike than the next one.",
    )
    seed: int = Field(0, ge=0)
    log: Literal["csv", "tensorboard"] = Field("csv", description="Where losses are written.")


class EvaluationConfig(_Stage):
    """Cross-validation and intervals."""

    folds: int = Field(3, ge=2, description="Paper: 3.")
    repeats: int = Field(1, ge=1, description="Each repeat draws new folds.")
    positive: str | None = Field(
        None, description="Class of the binary numbers; None: APL if present, else the rarest."
    )
    bootstrap: int = Field(2000, ge=100, description="Resamples of patients.")
    bootstrap_method: Literal["percentile", "BCa"] = Field(
        "percentile", description="BCa: corrected for bias and skewness (Efron 1993, ch. 14.3)."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1)
    seed: int = Field(0, ge=0)


class PredictionConfig(_Stage):
    """Prediction and the gates that move a sample towards a person."""

    batch_size: int = Field(32, ge=1, le=4096, description="Cells in memory at a time.")
    runtime: Literal["auto", "torch", "openvino", "onnx"] = Field(
        "auto",
        description="auto: openvino for frozen encoders on a CPU, else torch; onnx: an extra.",
    )
    winners: int = Field(12, ge=1, description="Cells named for each class.")
    min_cells: int = Field(50, ge=1, description="Below it no class is given.")
    min_cells_negative: int = Field(200, ge=1, description="Below it no NO_SIGNAL is given.")
    min_disease_probability: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Where a model knows a class without disease: all diseases together must reach "
        "this before one is named.",
    )
    min_negative_probability: float = Field(
        0.5,
        ge=0.5,
        lt=1,
        description="Probability of no disease that NO_SIGNAL needs, whichever cells are drawn.",
    )
    operating_point: Literal["sensitive", "balanced", "specific"] = Field(
        "sensitive",
        description="Two limits of the class that must not wait (APL): it is called from the upper "
        "one, excluded below the lower one, and a person decides between them. balanced: both are "
        "the fitted threshold; sensitive: the lower one assures target_sensitivity; specific: the "
        "upper one assures the same share of patients without it.",
    )
    target_sensitivity: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="Share that a limit is to assure with a confidence of 0.95, as far as the "
        "number of training patients allows.",
    )
    negative_labels: tuple[str, ...] = Field(
        ("normal", "healthy", "negative", "control", "benign", "no_signal"),
        description="Labels that mean no disease, in any case of letters; called as NO_SIGNAL.",
    )


STAGES = ("reading", "segmentation", "crops", "model", "augment", "training", "evaluation",
          "prediction")  # fmt: skip


class Config(_Stage):
    """All stages. ``Config()`` is the default profile."""

    reading: ReadingConfig = ReadingConfig()
    segmentation: SegmentationConfig = SegmentationConfig()
    crops: CropConfig = CropConfig()
    model: ModelConfig = ModelConfig()
    augment: AugmentConfig = AugmentConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    prediction: PredictionConfig = PredictionConfig()

    def digest(self, *stages: str) -> str:
        """SHA-256 (hex) of the named stages, or of all: equal settings, equal digest."""
        data = self.model_dump(mode="json", include=set(stages or STAGES))
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

    def differences(self, other: Config) -> dict[str, Any]:
        """Settings, as ``stage.field``, that are not those of another configuration."""
        own, others = self.model_dump(mode="json"), other.model_dump(mode="json")
        return {
            f"{stage}.{name}": value
            for stage, values in own.items()
            for name, value in values.items()
            if value != others[stage][name]
        }

    def with_settings(self, words: list[str]) -> Config:
        """Return a copy changed by ``stage.field=value`` words.

        Raises:
            ConfigError: a word is malformed, names an unknown key, or its value does not fit.
        """
        data = self.model_dump(mode="json")
        for word in words:
            stage, field, value = _split_word(word)
            data.setdefault(stage, {})[field] = value
        return _validated(data, "--set")

    def save(self, path: Path) -> None:
        """Write as TOML, readable by :func:`load`; settings that are None are left out."""
        path.write_text(to_toml(self), encoding="utf-8")


def load(path: Path | None = None, profile: str = "default", base: Config | None = None) -> Config:
    """Read a TOML file over a named profile.

    Args:
        path: TOML with a table a stage; None: the profile alone.
        profile: one of :func:`profiles`.
        base: settings to start from instead of the profile (those of a bundle).

    Raises:
        MissingFileError: the file does not exist.
        ConfigError: unknown profile, no TOML, unknown key, or a value that does not fit.
    """
    data = base.model_dump(mode="json") if base else _profile_data(profile)
    if path is None:
        return _validated(data, f"profile {profile}")
    if not path.is_file():
        raise MissingFileError(f"configuration file {path} does not exist")
    own = _toml_data(path.read_bytes(), str(path))
    for stage, values in own.items():
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: '{stage}' stands outside a table; write it under [stage]")
        data[stage] = {**data.get(stage, {}), **values}
    return _validated(data, str(path))


def parse(data: bytes, origin: str) -> Config:
    """Settings from the bytes of a TOML file; what it does not state is the default.

    Raises:
        ConfigError: no TOML, unknown key, or a value that does not fit; names ``origin``.
    """
    return _validated(_toml_data(data, origin), origin)


def profiles() -> tuple[str, ...]:
    """Names of the profiles in the package, ``default`` first."""
    folder = resources.files("millie") / "profiles"
    named = sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))
    return ("default", *named)


def to_toml(config: Config) -> str:
    """The configuration as TOML text, one table a stage."""
    lines: list[str] = []
    for stage, values in config.model_dump(mode="json").items():
        lines.append(f"[{stage}]")
        lines += [f"{k} = {_toml_value(v)}" for k, v in values.items() if v is not None]
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    return json.dumps(value)  # strings, booleans, numbers and lists of them read the same in TOML


def _toml_data(data: bytes, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # of numbers and nesting beyond Python's limits
        raise ConfigError(f"{origin} is not valid TOML: {error}") from error


def _profile_data(profile: str) -> dict[str, Any]:
    if profile == "default":
        return {}
    if profile not in profiles():
        raise ConfigError(f"unknown profile '{profile}'; known: {', '.join(profiles())}")
    text = (resources.files("millie") / "profiles" / f"{profile}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _split_word(word: str) -> tuple[str, str, Any]:
    key, equals, text = word.partition("=")
    stage, dot, field = key.strip().partition(".")
    if not (equals and dot and stage and field):
        raise ConfigError(
            f"--set {word}: expected stage.field=value, for example training.max_epochs=30"
        )
    text = text.strip()
    if text.lower() == "none":
        return stage, field, None
    try:
        return stage, field, tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):
        return stage, field, text


def _validated(data: dict[str, Any], origin: str) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{origin}: " + "; ".join(_explain(e) for e in error.errors())) from error


def _explain(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{key}: {error['msg']}, got {reprlib.repr(error['input'])}"
    stage, _, _ = key.partition(".")
    known = STAGES
    if stage in STAGES:
        known = tuple(Config.model_fields[stage].annotation.model_fields)  # type: ignore[union-attr]
    return f"unknown key '{key}'; known here: {', '.join(known)}"
