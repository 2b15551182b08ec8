"""The command for a laboratory's own validation: an example plan, sample sizes, the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from millie.cli.app import app
from millie.cli.exits import end_with_alarm, finish
from millie.cli.options import Verbose

if TYPE_CHECKING:
    from collections.abc import Sequence


def _table(name: str, columns: str) -> Any:
    return typer.Option(f"--{name}", help=f"Table (CSV): {columns}.", show_default=False)


@app.command()
def validate(
    plan: Annotated[
        Path | None,
        typer.Argument(
            help="Criteria, fixed beforehand.", metavar="[PLAN.toml]", show_default=False
        ),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option("--run", help="Output folder of `millie predict`. Repeatable.",
                     show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for page and tables.", show_default=False),
    ] = None,
    reference: Annotated[Path | None, _table("reference", "patient,label")] = None,
    replicates: Annotated[
        Path | None, _table("replicates", "patient,day,replicate,run[,name]")
    ] = None,
    counts: Annotated[
        Path | None, _table("counts", "patient[,leukocytes][,abnormal_percent]")
    ] = None,
    control: Annotated[Path | None, _table("control", "time,run[,name]")] = None,
    turnaround: Annotated[
        Path | None, _table("turnaround", "patient,minutes or patient,received,reported")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option("--model", help="Bundle of the runs, where it is not shipped.",
                     show_default=False),
    ] = None,
    trained_on: Annotated[
        Path | None,
        typer.Option("--trained-on", show_default=False,
                     help="Bag store that the model was trained on: its patients are noted."),
    ] = None,
    example: Annotated[
        bool, typer.Option("--example", help="Print a commented plan and end.")
    ] = False,
    sample_size: Annotated[
        bool,
        typer.Option("--sample-size",
                     help="Print how many patients are needed (--expected, --width, --at-least)."),
    ] = False,
    expected: Annotated[
        float, typer.Option("--expected", help="Share that is expected, for --sample-size.")
    ] = 0.95,
    width: Annotated[
        float, typer.Option("--width", help="Of the interval, for --sample-size.")
    ] = 0.1,
    at_least: Annotated[
        float | None,
        typer.Option("--at-least", show_default=False,
                     help="What the lower end of the interval must reach, for --sample-size."),
    ] = None,
    every: Verbose = False,
) -> None:  # fmt: skip
    """Report a laboratory's own validation, judged against a plan fixed beforehand.

    For example: millie validate --example > plan.toml, then millie validate
    plan.toml --run calls --reference diagnoses.csv --out validation

    Sections: agreement with a reference diagnosis, repeatability, cell counts,
    smallest share of abnormal cells, number of cells, interference, control
    slide, turnaround. What has no data is reported as not tested.

    Writes report.html, verdict.csv, figures.csv, patients.csv, plan.toml and
    validation.json. Exit code 0: every criterion is met. 1: so, but a run or
    patient could not be used. 2: nothing could be judged. 3: a criterion is
    not met or not tested.
    """
    from millie.cli import console as show

    if example:
        from millie.outputs.validation.plan import example as text

        show.say(text())
        return
    if sample_size:
        for line in sample_sizes(expected, width, at_least):
            show.say(line)
        return
    from millie import pipeline

    asked, runs, folder = needed(plan, run, out)
    with show.progress_bars() as progress:
        found = pipeline.validate(
            asked, runs, folder, reference, replicates, counts, control, turnaround, model,
            trained_on, progress,
        )  # fmt: skip
    for one in found.criteria:
        seen = one["note"] if one["outcome"] == "not tested" else one["observed"]
        wanted = f"{one['section']}: {one['what']}, {one['required']}"
        show.say(f"{one['outcome']:<11} {wanted}: {seen}")
    for remark in found.remarks:
        show.say(f"REMARK  {remark}")
    show.say(f"{found.line[:1].upper()}{found.line[1:]}.")
    show.say(f"Report -> {found.report}")
    if not found.all_met:
        show.list_problems(found.problems, every=every)
        end_with_alarm()
    finish(found.problems, every=every)


def needed(
    plan: Path | None, runs: Sequence[Path] | None, out: Path | None
) -> tuple[Path, list[Path], Path]:
    """What a report cannot be without.

    Raises:
        BadParameter: one of them is missing.
    """
    if plan is None or not runs or out is None:
        raise typer.BadParameter(
            "a validation needs a plan, --run and --out; `millie validate --example` prints a plan"
        )
    return plan, list(runs), out


_POWER = 0.8
"""Chance that the interval lies where it must."""


def sample_sizes(expected: float, width: float, at_least: float | None) -> list[str]:
    """How many patients are needed for an interval of 95 %, in sentences.

    Raises:
        ConfigError: a number out of its range, or far too many patients.
    """
    from millie.statistics.intervals import clopper_pearson
    from millie.statistics.sample_size import patients_for_limit, patients_for_width

    n = patients_for_width(expected, width)
    agree = round(n * expected)
    ends = clopper_pearson(agree, n)
    told = f"{agree} of {n}, {ends.low:.3f} to {ends.high:.3f}"
    lines = [
        (
            f"{n:,} patients give an exact 95 % interval no wider than {width:g} "
            f"where a share of {expected:g} is found: {told}."
        )
    ]
    if at_least is not None:
        m = patients_for_limit(expected, at_least, _POWER)
        lines.append(
            f"{m:,} patients: the interval then lies above {at_least:g} with a chance of "
            f"{_POWER:g} or more, if the true share is {expected:g}."
        )
    lines.append(
        "Patients of the class that the share is of: for a sensitivity those who have it, for a "
        "specificity those who do not. One film of a patient counts once."
    )
    return lines
