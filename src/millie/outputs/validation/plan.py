"""The validation plan: what is to be shown, and from which figure on it counts as shown.

Owns the keys of the plan, their units and ranges, and the commented example. A plan is written
before the data are looked at; the report names its digest. Keys without a value are not judged.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from millie.errors import ConfigError, MissingFileError

Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(gt=0, le=100)]
OTHER = "other"
"""A reference diagnosis that the model does not know."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _asked(
    description: str, example: object = None, *, default: object = None, **limits: Any
) -> Any:
    """A key with its comment and the value of the example; None: not asked for."""
    return Field(default, description=description, examples=[example], **limits)


class StudyPlan(_Part):
    """Who validates what, and how figures are judged."""

    title: str = _asked("", "Validation of millie on our own blood films", default="Validation")
    laboratory: str = _asked("", "Haematology laboratory, name of the hospital", default="")
    prepared_by: str = _asked("Who wrote this plan.", "Name, role", default="")
    fixed_on: datetime.date | None = _asked(
        "The day on which this plan was fixed; runs made before it are named in the report."
    )
    purpose: str = _asked(
        "What the calls are to be used for.", "Order of reading: films to look at first",
        default="",
    )  # fmt: skip
    confidence: float = _asked("Of all intervals.", 0.95, default=0.95, gt=0.5, lt=1)
    judged_by: Literal["interval", "estimate"] = _asked(
        "interval: the end of the interval that is less favourable must meet a criterion; "
        "estimate: the figure itself.",
        "interval", default="interval",
    )  # fmt: skip
    indeterminate: Literal["disagreement", "left_out"] = _asked(
        "How patients without a call count where a figure is judged; the report shows both ways.",
        "disagreement", default="disagreement",
    )  # fmt: skip


class ClassPlan(_Part):
    """Criteria of one class against the rest."""

    min_sensitivity: Share | None = _asked("", 0.9)
    min_specificity: Share | None = _asked("", 0.9)


class AgreementPlan(_Part):
    """Agreement with a reference diagnosis; modelled on CLSI EP12."""

    reference_is: Literal["diagnosis", "method"] = _asked(
        "diagnosis: sensitivity and specificity; method: the reference is another method that may "
        "be wrong itself, and the same figures are called positive and negative agreement.",
        "diagnosis", default="diagnosis",
    )  # fmt: skip
    min_patients_per_class: int | None = _asked(
        "Patients that each class of the reference must have at least.", 20, ge=1
    )
    min_sensitivity: Share | None = _asked(
        "Of any disease against none; of the class that must not wait (APL) where the model knows "
        "no class without disease. Also min_specificity.", 0.9,
    )  # fmt: skip
    min_specificity: Share | None = _asked("", 0.8)
    min_overall_agreement: Share | None = _asked("Share of patients called right.", 0.8)
    min_kappa: Annotated[float, Field(ge=-1, le=1)] | None = _asked("Cohen's kappa.", 0.6)
    max_without_call: Share | None = _asked(
        "Share of patients that are INDETERMINATE, urgent or failed.", 0.3
    )
    labels: dict[str, str] = _asked(
        "Words of the reference table and the classes of the model that they mean; a disease that "
        f"the model does not know is '{OTHER}'.", {"B-ALL": "ALL", "healthy": "normal"},
        default={},
    )  # fmt: skip
    classes: dict[str, ClassPlan] = _asked(
        "Criteria of single classes against the rest.",
        {"APL": {"min_sensitivity": 0.9, "min_specificity": 0.9}}, default={},
    )  # fmt: skip


class RepeatabilityPlan(_Part):
    """The same patients again, over days and replicates; modelled on CLSI EP05 and EP15."""

    min_patients: int | None = _asked("", 5, ge=1)
    min_days: int | None = _asked("Of the patient with the fewest.", 5, ge=2)
    max_sd_repeatability_log_odds: Annotated[float, Field(gt=0)] | None = _asked(
        "Standard deviation of the log odds (natural logarithm) on one day.", 1.0
    )
    max_sd_within_laboratory_log_odds: Annotated[float, Field(gt=0)] | None = _asked(
        "The same over days.", 1.5
    )
    min_same_call: Share | None = _asked(
        "Share of patients with the same state in all replicates.", 0.7
    )
    max_share_in_band: Share | None = _asked(
        "Share of patients whose log odds lie so near to the threshold that between 5 and 95 % of "
        "repeated results would be above it.", 0.2,
    )  # fmt: skip


class CountPlan(_Part):
    """Leukocytes counted on the same images; modelled on CLSI H20 and EP09."""

    min_slope: Annotated[float, Field(gt=0)] | None = _asked("Passing-Bablok slope.", 0.9)
    max_slope: Annotated[float, Field(gt=0)] | None = _asked("", 1.1)
    max_bias_cells: Annotated[float, Field(ge=0)] | None = _asked(
        "Mean difference from the reference, without its sign.", 10.0
    )
    max_limit_cells: Annotated[float, Field(ge=0)] | None = _asked(
        "The wider of the two limits of agreement, without its sign.", 40.0
    )


class ShareCountPlan(_Part):
    """Abnormal cells in percent of leukocytes, by a manual differential; modelled on CLSI H20."""

    min_slope: Annotated[float, Field(gt=0)] | None = _asked("Passing-Bablok slope.")
    max_slope: Annotated[float, Field(gt=0)] | None = _asked("")
    max_bias_percent_points: Annotated[float, Field(ge=0)] | None = _asked(
        "Mean difference from the reference, without its sign."
    )
    max_limit_percent_points: Annotated[float, Field(ge=0)] | None = _asked(
        "The wider of the two limits of agreement, without its sign."
    )


class DilutionPlan(_Part):
    """Smallest share of a patient's cells, among cells of others without disease, that is flagged.

    Needs a model that knows a class without disease, and the runs' bag stores.
    """

    patients: int = _asked("With disease, at most.", 20, default=20, ge=1)
    cells: int = _asked("Of a mixture.", 200, default=200, ge=1, le=5000)
    shares_percent: tuple[Percent, ...] = _asked(
        "Of the patient's cells in a mixture.", [1, 2, 5, 10, 20, 50, 100],
        default=(1, 2, 5, 10, 20, 50, 100), min_length=1, max_length=20,
    )  # fmt: skip
    draws: int = _asked("Mixtures of a patient at each share.", 5, default=5, ge=1, le=1000)
    flagged: Literal["called", "called_or_urgent"] = _asked(
        "What counts as flagged: a disease is named, or that or an urgent state.",
        "called_or_urgent", default="called_or_urgent",
    )  # fmt: skip
    flagged_share: Share = _asked(
        "Share of mixtures that must be flagged for a share of cells to count as found.", 0.95,
        default=0.95,
    )  # fmt: skip
    max_smallest_share_percent: Percent | None = _asked(
        "The smallest share that is found, with every larger one.", 20
    )


class CellNumberPlan(_Part):
    """Fewer cells of the same film: does the call stay? Needs the runs' bag stores."""

    patients: int = _asked("At most.", 20, default=20, ge=1)
    cells: tuple[Annotated[int, Field(ge=1, le=5000)], ...] = _asked(
        "Drawn of each film.", [25, 50, 100, 200], default=(25, 50, 100, 200), min_length=1,
        max_length=20,
    )  # fmt: skip
    draws: int = _asked("Of a patient for each number.", 5, default=5, ge=1, le=1000)
    at_cells: int | None = _asked("Of these numbers, the one that is judged.", 100, ge=1)
    min_same_call: Share | None = _asked(
        "Share of draws with the state of the whole film, among films with a call.", 0.8
    )
    max_other_call: Share | None = _asked("Share of these draws that name another class.", 0.02)

    @model_validator(mode="after")
    def _drawn(self) -> Self:
        if self.at_cells is not None and self.at_cells not in self.cells:
            raise ValueError(f"at_cells {self.at_cells} is not among cells {list(self.cells)}")
        return self


class InterferencePlan(_Part):
    """Images made worse and predicted again. Needs the images where the run found them."""

    patients: int = _asked("At most.", 10, default=10, ge=1)
    changes: tuple[str, ...] = _asked(
        "", ["blur", "JPEG", "weak stain", "strong stain", "hue", "dark", "smaller scale"],
        default=("blur", "JPEG", "weak stain", "strong stain", "hue", "dark", "smaller scale"),
        min_length=1, max_length=20,
    )  # fmt: skip
    min_same_call: Share | None = _asked(
        "For each change: share of patients with the same state, among those with a call.", 0.5
    )
    max_other_call: Share | None = _asked(
        "For each change: share of these patients that get another class.", 0.3
    )


class ControlPlan(_Part):
    """A control slide, predicted again and again: Levey-Jennings chart with Westgard's rules."""

    baseline_points: int = _asked(
        "First points, whose mean and standard deviation are the chart's unless both are given.",
        20, default=20, ge=2,
    )  # fmt: skip
    mean_log_odds: float | None = _asked("")
    sd_log_odds: Annotated[float, Field(gt=0)] | None = _asked("")
    max_rejections: int | None = _asked("Points after the baseline that break a rule.", 0, ge=0)


class TurnaroundPlan(_Part):
    """From the receipt of the sample, or wherever the clock starts, to the call."""

    max_median_minutes: Annotated[float, Field(gt=0)] | None = _asked("", 60)
    max_p90_minutes: Annotated[float, Field(gt=0)] | None = _asked("90 % are faster.", 120)


class Plan(_Part):
    """All sections; one that is left out is reported where data are given, and not judged."""

    study: StudyPlan = StudyPlan()
    agreement: AgreementPlan = AgreementPlan()
    repeatability: RepeatabilityPlan = RepeatabilityPlan()
    leukocytes: CountPlan = CountPlan()
    abnormal_cells: ShareCountPlan = ShareCountPlan()
    dilution: DilutionPlan | None = None
    number_of_cells: CellNumberPlan | None = None
    interference: InterferencePlan | None = None
    control: ControlPlan = ControlPlan()
    turnaround: TurnaroundPlan = TurnaroundPlan()


def read_plan(path: Path) -> tuple[Plan, bytes]:
    """A plan, and the bytes that its digest is taken of.

    Raises:
        MissingFileError: there is no such file.
        ConfigError: no TOML, unknown key, or a value that does not fit.
    """
    if not path.is_file():
        raise MissingFileError(
            f"plan {path} does not exist; `millie validate --example > {path.name}` writes one"
        )
    data = path.read_bytes()
    try:
        content = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    try:
        return Plan.model_validate(content), data
    except ValidationError as error:
        told = "; ".join(_explained(one) for one in error.errors())
        raise ConfigError(f"{path}: {told}") from error


def digest(data: bytes) -> str:
    """SHA-256 (hex) of a plan's bytes."""
    return hashlib.sha256(data).hexdigest()


def _explained(error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        above = error["loc"][:-1]
        place = f"[{'.'.join(map(str, above))}]" if above else "the plan"
        return f"unknown key '{key}'; {place} knows {', '.join(_keys(above))}"
    return f"{key}: {error['msg']}, got {error['input']!r}"


def _keys(place: tuple[Any, ...]) -> list[str]:
    if place[:2] == ("agreement", "classes"):
        return list(ClassPlan.model_fields)
    return list(_PARTS[str(place[0])].model_fields) if place else list(_PARTS)


_PARTS: dict[str, type[_Part]] = {
    "study": StudyPlan, "agreement": AgreementPlan, "repeatability": RepeatabilityPlan,
    "leukocytes": CountPlan, "abnormal_cells": ShareCountPlan, "dilution": DilutionPlan,
    "number_of_cells": CellNumberPlan, "interference": InterferencePlan, "control": ControlPlan,
    "turnaround": TurnaroundPlan,
}  # fmt: skip


def example() -> str:
    """A plan with a comment on every key, that can be read as it is.

    The figures are no recommendation: a laboratory sets its own, before it looks at its data.
    """
    lines = [
        "# A validation plan for `millie validate`. Fix it before looking at the data: the report",
        "# names the SHA-256 of this file. The figures are an example, not a recommendation.",
        "# Remove what is not asked for: a key without a value is reported, not judged; without",
        "# [dilution], [number_of_cells] and [interference] these are not computed.",
        "",
    ]
    for name, part in _PARTS.items():
        lines += [*_comment((part.__doc__ or "").strip()), f"[{name}]"]
        for key, field in part.model_fields.items():
            value = (field.examples or [None])[0]
            lines += _comment(field.description or "")
            lines.append(f"# {key} = " if value is None else f"{key} = {_toml(value)}")
        lines.append("")
    return "\n".join(lines)


def _comment(text: str) -> list[str]:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 96:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [f"# {line}" for line in lines if line]


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
