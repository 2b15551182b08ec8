"""How the model and the laboratory do: overrides, unfamiliar samples, states by week, turnaround.

Each sample counts once, by its latest analysis; shares come with the exact 95 % interval and the
numbers they are made of.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, timedelta
from statistics import median
from typing import TYPE_CHECKING

from django.db.models import Min
from django.utils import timezone

from millie.outputs.patient.states import SUSPECT_SUFFIX, words_for
from millie.review.cell_kinds import ARTEFACT, BY_CODE
from millie.review.diagnoses import DIAGNOSES
from millie.review.models import Cell, Sample, Signature
from millie.statistics.intervals import clopper_pearson

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date, datetime

    from millie.review.models import Analysis

STYLES = ("suspect", "urgent", "disease", "indeterminate", "nosignal", "failed")
"""Groups of states, the most urgent first."""


@dataclass(frozen=True, slots=True)
class Share:
    """Part of a number, with its interval; ``of`` may be 0: then there is no share."""

    n: int
    of: int

    @property
    def value(self) -> float | None:
        """0 to 1."""
        return self.n / self.of if self.of else None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Of the exact 95 % interval."""
        if not self.of:
            return None
        found = clopper_pearson(self.n, self.of)
        return found.low, found.high


@dataclass(frozen=True, slots=True)
class Week:
    """Samples submitted in one week, by group of states; ``monday`` in UTC."""

    monday: date
    counts: dict[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class Turnaround:
    """Hours from submission to an event: median and the time within which nine of ten were done."""

    title: str
    n: int
    median_h: float
    nine_of_ten_h: float


@dataclass(frozen=True, slots=True)
class Quality:
    """All figures of the dashboard.

    Attributes:
        overridden: signed samples whose conclusion is another one than the call, of those with one.
        conclusions: how often each call met each conclusion, the commonest first.
        kinds_overridden: cells whose suggested kind a person changed, of those with a suggested
            kind.
        rejected: decided cells that are no cells.
        unfamiliar: samples farther from the training patients than the model allows.
        failed: samples with a measure beyond its limit.
        weeks: the latest last, without gaps.
        turnaround: of calls and signatures.
    """

    overridden: Share
    conclusions: list[tuple[str, str, int]]
    kinds_overridden: Share
    rejected: Share
    unfamiliar: Share
    failed: Share
    weeks: list[Week]
    turnaround: list[Turnaround]


def called(state: str) -> str | None:
    """The conclusion that a state suggests; None: no call was made."""
    if state == "NO_SIGNAL":
        return "normal"
    disease = state.removesuffix(SUSPECT_SUFFIX)
    return disease if words_for(state).rank in {0, 2} else None


def measure_quality(n_weeks: int = 12) -> Quality:
    """Count all samples of the database.

    Args:
        n_weeks: how many weeks back are told one by one.
    """
    samples = list(Sample.objects.exclude(analysis=None).select_related("analysis"))
    analyses = [sample.analysis for sample in samples if sample.analysis is not None]
    usable = [analysis for analysis in analyses if analysis.result["error"] is None]
    signed = list(_latest_signatures())
    with_call = [one for one in signed if called(one.analysis.state) is not None]
    other = [one for one in with_call if called(one.analysis.state) != one.diagnosis]
    met = Counter((words_for(one.analysis.state).title, DIAGNOSES.get(one.diagnosis, one.diagnosis))
        for one in signed)  # fmt: skip
    return Quality(
        overridden=Share(len(other), len(with_call)),
        conclusions=[(*pair, n) for pair, n in met.most_common()],
        kinds_overridden=_kinds_overridden(),
        rejected=_rejected(),
        unfamiliar=_beyond(usable, "distance"),
        failed=Share(sum(bool(_failed(analysis)) for analysis in usable), len(usable)),
        weeks=_weeks(samples, n_weeks),
        turnaround=[*_times(samples)],
    )


def _latest_signatures() -> Iterable[Signature]:
    latest: dict[int, Signature] = {}
    for signature in Signature.objects.select_related("analysis").order_by("version"):
        latest[signature.sample_id] = signature
    return latest.values()


def _failed(analysis: Analysis) -> set[str]:
    return {entry["name"] for entry in analysis.result["quality"] if not entry["passed"]}


def _beyond(analyses: list[Analysis], measure: str) -> Share:
    """Analyses in which a measure with a limit is beyond it, of those in which it was measured."""
    measured = [
        entry["passed"]
        for analysis in analyses
        for entry in analysis.result["quality"]
        if entry["name"] == measure and entry["value"] is not None
        and (entry["low"], entry["high"]) != (None, None)
    ]  # fmt: skip
    return Share(measured.count(False), len(measured))


def _decided() -> Counter[tuple[str, str]]:
    """How often each suggestion met each decision, in the latest analyses."""
    latest = Sample.objects.exclude(analysis=None).values("analysis")
    cells = Cell.objects.filter(analysis__in=latest)
    pairs = cells.exclude(decision="").order_by().values_list("suggestion", "decision")
    return Counter(pairs.iterator())


def _kinds_overridden() -> Share:
    told = {pair: n for pair, n in _decided().items() if pair[0] in BY_CODE}
    return Share(sum(n for (said, is_), n in told.items() if said != is_), sum(told.values()))


def _rejected() -> Share:
    told = _decided()
    return Share(sum(n for (_, is_), n in told.items() if is_ == ARTEFACT), told.total())


def _weeks(samples: list[Sample], n_weeks: int) -> list[Week]:
    def monday(when: datetime) -> date:
        day = when.astimezone(UTC).date()
        return day - timedelta(days=day.weekday())

    tally: Counter[tuple[date, str]] = Counter(
        (monday(sample.submitted_at), words_for(sample.analysis.state).style)
        for sample in samples if sample.analysis is not None
    )  # fmt: skip
    last = monday(timezone.now())
    mondays = [last - timedelta(weeks=back) for back in range(n_weeks - 1, -1, -1)]
    return [Week(day, {style: tally[day, style] for style in STYLES}) for day in mondays]


def _times(samples: list[Sample]) -> Iterable[Turnaround]:
    first = Sample.objects.exclude(analysis=None).annotate(first=Min("analyses__created"))
    spans = list(first.values_list("submitted_at", "first"))
    yield from _turnaround("To the first call, all samples", spans)
    signed = [s for s in samples if s.signed_at is not None]
    urgent = [s for s in signed if s.analysis is not None and s.analysis.rank <= 1]
    for which, some in (("all samples", signed), ("suspected or urgent", urgent)):
        spans = [(s.submitted_at, s.signed_at) for s in some if s.signed_at is not None]
        yield from _turnaround(f"To the signature, {which}", spans)


def _turnaround(title: str, spans: list[tuple[datetime, datetime]]) -> Iterable[Turnaround]:
    hours = sorted((end - start).total_seconds() / 3600 for start, end in spans)
    if hours:
        nine = hours[min(len(hours) - 1, -(-9 * len(hours) // 10) - 1)]
        yield Turnaround(title, len(hours), median(hours), nine)
