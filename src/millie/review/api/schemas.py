"""What the API takes and gives, as its OpenAPI describes it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ninja import Schema
from pydantic import Field

Status = Literal["queued", "running", "done", "failed"]
SpecimenName = Literal["blood", "marrow", "unknown"]


class Problem(Schema):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    files: list[dict[str, str]] = Field(
        default=[], description="With 422: each file that was refused, its `name` and the `reason`."
    )
    errors: list[dict[str, Any]] = Field(
        default=[], description="With 422: each field that is wrong."
    )


class Conclusion(Schema):
    """What a person signed."""

    diagnosis: str
    version: int = Field(description="1 for the first signature; an amendment is a further one.")
    signed_at: datetime
    holds: bool = Field(
        description="false: the sample has changed since and is open again; not to be acted upon."
    )


class SampleOut(Schema):
    """A sample: where its analysis stands, and what came of it."""

    id: str = Field(description="The pseudonym, by which it is known everywhere.")
    specimen: SpecimenName
    um_px: float | None
    submitted_at: datetime
    n_images: int
    notes: list[str] = Field(description="What was noticed when it came in.")
    status: Status = Field(description="Of its latest analysis.")
    step: str = Field(description="What is being done, with `done` of `total`.")
    done: int
    total: int
    error: str = Field(description="Why the analysis failed, and what to do.")
    state: str | None = Field(description="The call, as in predictions.json; null before it.")
    n_cells: int | None
    analysis: int | None = Field(description="Number of the latest finished analysis.")
    conclusion: Conclusion | None = Field(description="null until a person has signed.")


class Page(Schema):
    """Part of a list."""

    page: int
    pages: int
    total: int


class SamplePage(Page):
    """Samples in the order in which they came."""

    items: list[SampleOut]


class Result(Schema):
    """A suggestion; a person decides."""

    research_use_only: Literal[True]
    analysis: int
    model: dict[str, Any] = Field(description="The model's card, as in predictions.json.")
    patient: dict[str, Any] = Field(description="The entry of predictions.json, unchanged.")


class CellOut(Schema):
    """A cell: its place in pixels of the full-resolution image, and what it looks like."""

    index: int
    image: int = Field(description="Position of its image in the sample, from 1.")
    left_px: int
    top_px: int
    width_px: int
    height_px: int
    um_px: float | None
    probabilities: dict[str, float] = Field(description="May sum to less than 1.")
    suggestion: str = Field(description="Kind, or likeliest class; empty: none of them.")
    certainty: float = Field(description="Highest probability of a class.")
    strength: float
    flagged: bool
    remarks: str
    decision: str = Field(description="What a person named it; empty: nobody has.")
    version: int


class CellPage(Page):
    """Cells of the latest analysis, in the bag's order."""

    analysis: int
    items: list[CellOut]


class Health(Schema):
    """Whether the service works."""

    status: Literal["ok", "failing"]
    checks: dict[str, str]
