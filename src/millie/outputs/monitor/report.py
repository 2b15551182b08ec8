"""What ``millie monitor`` leaves: two tables, one JSON file and one page, all of the same findings.

Owns their columns and the wording of alarms.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millie.files import Value, write_csv, write_text
from millie.outputs.figure_files import svg_uri
from millie.outputs.figures import evidence_figure, rates_over_runs, values_over_runs
from millie.outputs.monitor.rates import Compared, Kind, codes_of
from millie.outputs.monitor.runs import Series
from millie.outputs.monitor.streams import WHOLE, Stream
from millie.outputs.page import count, percent, render
from millie.types import Problem

SCHEMA = 1
FILES = ("report.html", "rates.csv", "patients.csv", "monitor.json")


@dataclass(frozen=True, slots=True)
class Monitored:
    """Everything that was found of one model's runs."""

    series: Series
    rates: tuple[Compared, ...]
    streams: tuple[Stream, ...]
    level: float

    @property
    def line(self) -> str:
        """The runs in a sentence, and why no rate was tested where none was."""
        runs, times = self.series.runs, [f"{run.when:%Y-%m-%d}" for run in self.series.runs]
        span = times[0] if times[0] == times[-1] else f"{times[0]} to {times[-1]}"
        line = f"{count(len(runs), 'run')}, {count(self.series.n_patients, 'patient')}, {span}"
        if repeated := sum(len(run.repeated) for run in runs):
            line += f"; {repeated} seen before, counted once"
        return f"{self.series.title}: {line}{self._untested}"

    @property
    def _untested(self) -> str:
        if any(one.p is not None for one in self.rates):
            return ""
        if len(self.series.runs) == 1:
            return "; one run only: nothing to compare it with, name more or give expected rates"
        return "; no rate is tested: no run is left beside the baseline, or nothing is expected"

    @property
    def alarms(self) -> list[str]:
        """One line each, the strongest first."""
        rates = sorted((one for one in self.rates if one.alarm), key=lambda one: one.adjusted or 0)
        streams = [stream for stream in self.streams if stream.alarm]
        shifts = [
            self._of_shift(stream, run, p)
            for stream in self.streams
            for run, p in stream.shifts.items()
            if p < self.level
        ]
        lines = [*map(self._of_rate, rates), *shifts, *map(self._of_stream, streams)]
        return [f"{self.series.title}: {line}" for line in lines]

    def _of_rate(self, one: Compared) -> str:
        share, expected = one.rate.value or 0.0, one.expected or 0.0
        more = "more often" if share > expected else "less often"
        known = f"{percent(expected)} expected"
        if one.earlier is not None:
            known = f"{one.earlier.successes} of {one.earlier.n} in the baseline"
        return (
            f"{one.name} {more} in run {one.run + 1} ({self.series.runs[one.run].name}): "
            f"{one.rate.successes} of {one.rate.n} patients, {known} "
            f"(corrected p = {one.adjusted or 0.0:.2g})"
        )

    def _of_shift(self, stream: Stream, run: int, p: float) -> str:
        median = float(np.median(stream.by_run[run]))
        return (
            f"{stream.title} differs in run {run + 1} ({self.series.runs[run].name}) from the "
            f"baseline: median {median:.3g} (corrected p = {p:.2g})"
        )

    def _of_stream(self, stream: Stream) -> str:
        run, patient = stream.alarm or (0, "")
        return (
            f"{stream.title} has changed over time, certain from run {run + 1} "
            f"({self.series.runs[run].name}), patient {patient} "
            f"(evidence {float(stream.evidence.max()):,.0f}, limit {stream.limit:.0f})"
        )


def write_monitor(
    out: Path, found: Sequence[Monitored], settings: Mapping[str, Any], problems: Sequence[Problem]
) -> Path:
    """Write ``monitor.json``, by which the folder is known, the tables and ``report.html``.

    Args:
        out: folder; made if missing.
        found: one a model.
        settings: ``baseline`` (runs), ``expected`` (rates by state) and ``level``.
        problems: what was left out or counted once.

    Returns:
        path of ``report.html``.
    """
    content = {
        "schema": SCHEMA,
        "research_use_only": True,
        **settings,
        "models": [_to_json(one) for one in found],
        "problems": [asdict(problem) for problem in problems],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(out / "monitor.json", text + "\n")
    write_csv(out / "rates.csv", list(_RATE), (list(row.values()) for row in rate_rows(found)))
    write_csv(out / "patients.csv", _patient_columns(found), _patient_rows(found))
    page = render(
        "monitor.html.j2",
        parts=[_shown(one, settings["baseline"]) for one in found],
        alarms=[line for one in found for line in one.alarms],
        problems=problems,
        **settings,
    )
    return write_text(out / "report.html", page)


def rate_rows(found: Sequence[Monitored]) -> list[dict[str, Value]]:
    """The rows of ``rates.csv``: each state and each reason in each run."""
    return [_rate_row(part.series, one) for part in found for one in part.rates]


def _rate_row(series: Series, one: Compared) -> dict[str, Value]:
    run, earlier = series.runs[one.run], one.earlier
    return {
        "model": series.title, "model_sha256": series.model.sha256,
        "run": run.name, "created": run.when.isoformat(), "kind": one.kind, "name": one.name,
        "count": one.rate.successes, "patients": one.rate.n,
        "rate": one.rate.value, "low": one.rate.low, "high": one.rate.high,
        "expected": one.expected,
        "baseline_count": earlier.successes if earlier else None,
        "baseline_patients": earlier.n if earlier else None,
        "p": one.p, "p_corrected": one.adjusted, "alarm": one.alarm,
    }  # fmt: skip


_RATE = (
    "model", "model_sha256", "run", "created", "kind", "name", "count", "patients", "rate", "low",
    "high", "expected", "baseline_count", "baseline_patients", "p", "p_corrected", "alarm",
)  # fmt: skip


def _patient_columns(found: Sequence[Monitored]) -> list[str]:
    names = dict.fromkeys(stream.name for part in found for stream in part.streams)
    numbers = [column for name in names for column in (name, f"evidence_{name}")]
    return ["model", "model_sha256", "run", "created", "patient", "state", "codes", *numbers]


def _patient_rows(found: Sequence[Monitored]) -> Iterator[list[Value]]:
    """Each patient that counts, in the order of the test."""
    columns = _patient_columns(found)
    for part in found:
        model = part.series.model
        paths = {stream.name: iter(stream.evidence.tolist()) for stream in part.streams}
        for i, run in enumerate(part.series.runs):
            for result in run.counted:
                row: dict[str, Value] = dict.fromkeys(columns)
                row |= {
                    "model": part.series.title, "model_sha256": model.sha256, "run": run.name,
                    "created": run.when.isoformat(), "patient": result.patient,
                    "state": result.state, "codes": " ".join(sorted(codes_of(result))),
                }  # fmt: skip
                for stream in part.streams:
                    if result.patient in stream.values[i]:
                        row[stream.name] = stream.values[i][result.patient]
                        row[f"evidence_{stream.name}"] = next(paths[stream.name])
                yield list(row.values())


def _to_json(part: Monitored) -> dict[str, Any]:
    return {
        "model": part.series.model.to_card(),
        "runs": [
            {
                "name": run.name, "created": run.when.isoformat(),
                "patients": len(run.run.patients), "counted": len(run.counted),
                "repeated": list(run.repeated), "trained_on": list(run.trained),
            }
            for run in part.series.runs
        ],
        "rates": [_rate_row(part.series, one) for one in part.rates],
        "streams": [
            {
                "name": stream.name, "title": stream.title, "limit": stream.limit,
                "largest_evidence": float(stream.evidence.max()),
                "quartiles": [_quartiles(own) for own in stream.by_run],
                "p_corrected": [stream.shifts.get(i) for i in range(len(stream.values))],
                "alarm": None
                if stream.alarm is None
                else {"run": part.series.runs[stream.alarm[0]].name, "patient": stream.alarm[1]},
            }
            for stream in part.streams
        ],
        "alarms": part.alarms,
    }  # fmt: skip


def _quartiles(values: NDArray[np.float64]) -> list[float] | None:
    """Smallest, quarter, median, three quarters, largest."""
    return np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist() if len(values) else None


def _shown(part: Monitored, baseline: int) -> dict[str, Any]:
    """What the page shows of one model."""
    rates: dict[Kind, dict[str, list[Compared]]] = {"state": {}, "reason": {}}
    for one in part.rates:
        rates[one.kind].setdefault(one.name, []).append(one)
    return {
        "model": part.series.model,
        "title": part.series.title,
        "line": part.line,
        "runs": part.series.runs,
        "baseline": min(baseline, len(part.series.runs)),
        "tests": sum(one.p is not None for one in part.rates),
        "groups": [
            {"kind": kind, "names": list(own), "rows": list(zip(*own.values(), strict=True)),
             "figures": [_rate_figure(name, row) for name, row in own.items()]}
            for kind, own in rates.items() if own
        ],
        "streams": [_stream_shown(stream, part.level) for stream in part.streams],
        "alarms": part.alarms,
    }  # fmt: skip


def _rate_figure(name: str, row: Sequence[Compared]) -> dict[str, str]:
    rates = [
        None if r.value is None else (r.value, r.low or 0.0, r.high or 0.0)
        for r in (one.rate for one in row)
    ]
    expected = next((one.expected for one in row if one.expected is not None), None)
    figure = rates_over_runs(rates, [one.alarm for one in row], expected, name)
    words = ", ".join(f"{one.rate.successes} of {one.rate.n}" for one in row)
    return {"uri": svg_uri(figure), "alt": f"{name}, patients by run: {words}"}


def _stream_shown(stream: Stream, level: float) -> dict[str, Any]:
    ends = list(accumulate(len(run) for run in stream.values))
    largest = float(stream.evidence.max())
    return {
        "title": stream.title,
        "places": 0 if stream.name in WHOLE else 3,
        "quartiles": [_quartiles(own) for own in stream.by_run],
        "shifts": [stream.shifts.get(i) for i in range(len(stream.values))],
        "numbers": [len(own) for own in stream.by_run],
        "dots": svg_uri(values_over_runs(stream.by_run, stream.title.partition(" (")[0])),
        "evidence": svg_uri(evidence_figure(stream.evidence, ends, stream.limit)),
        "largest": largest,
        "limit": stream.limit,
        "alarm": stream.alarm is not None or min(stream.shifts.values(), default=1) < level,
    }
