"""Sections that need tables: repeatability, counts, control slide, turnaround."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import millie
from millie.errors import ManifestError
from millie.outputs.validation.inputs import read_control, read_turnaround
from millie.statistics.method_comparison import bland_altman, passing_bablok
from millie.statistics.variance_components import variance_components

MakeRun = Callable[..., Path]
Write = Callable[..., Path]
ODDS = {  # of any disease: day, replicate, patient
    ("1", "1"): (0.6, 0.20), ("1", "2"): (0.65, 0.25), ("2", "1"): (0.75, 0.1),
    ("2", "2"): (0.8, 0.15),
}  # fmt: skip


def _log_odds(p: float) -> float:
    return math.log(p / (1 - p))


def _section(folder: Path, key: str) -> dict[str, dict[str, float | None]]:
    content = json.loads((folder / "validation.json").read_text(encoding="utf-8"))
    (section,) = [one for one in content["sections"] if one["key"] == key]
    return {figure["figure"]: figure for figure in section["figures"]}


def _state(p: float) -> str:
    return "AML" if p > 0.5 else "NO_SIGNAL"


@pytest.fixture
def replicates(make_run: MakeRun, table: Write) -> Path:
    rows = ["patient,day,replicate,run,name"]
    for (day, replicate), (ill, well) in ODDS.items():
        name = f"rep{day}{replicate}"
        make_run(name, {"ill": (_state(ill), ill), "healthy": (_state(well), well)})
        rows += [f"P1,{day},{replicate},{name},ill", f"P2,{day},{replicate},{name},healthy"]
    return table("replicates", "\n".join(rows))


def test_repeatability_is_the_analysis_of_variance_of_the_log_odds(
    replicates: Path, make_run: MakeRun, plan: Write, tmp_path: Path
) -> None:
    run = make_run("run", {"a": ("AML", 0.9), "b": ("AML", 0.55), "c": ("NO_SIGNAL", 0.01)})
    text = (
        "[study]\njudged_by = 'estimate'\n[repeatability]\nmin_patients = 2\nmin_days = 3\n"
        "max_sd_repeatability_log_odds = 0.5\nmin_same_call = 0.9\nmax_share_in_band = 0.1"
    )
    found = millie.validate(plan(text), run, tmp_path / "out", replicates=replicates)
    expected = variance_components([
        [[_log_odds(ODDS[day, r][who]) for r in "12"] for day in "12"] for who in (0, 1)
    ])  # fmt: skip
    rows = _section(found.out, "repeatability")
    repeatability = rows["standard deviation on one day (repeatability)"]
    assert repeatability["value"] == pytest.approx(expected.repeatability.value)
    within = rows["standard deviation within the laboratory"]
    assert within["value"] == pytest.approx(expected.within_laboratory.value)
    assert within["high"] == pytest.approx(expected.within_laboratory.high)
    outcomes = {one["key"]: one["outcome"] for one in found.rows()}
    # the threshold is that of the model, which is not here: no band
    assert outcomes == {
        "min_patients": "met", "min_days": "not met", "max_sd_repeatability_log_odds": "met",
        "min_same_call": "met", "max_share_in_band": "not tested",
    }  # fmt: skip


def test_a_patient_examined_once_does_not_agree_with_itself(
    replicates: Path, make_run: MakeRun, plan: Write, table: Write, tmp_path: Path
) -> None:
    run = make_run("run", {"a": ("AML", 0.9)})
    make_run("rep3", {"once": ("AML", 0.9)})
    rows = replicates.read_text(encoding="utf-8").rstrip() + "\nP3,1,1,rep3,once"
    found = millie.validate(plan(""), run, tmp_path / "out", replicates=table("more", rows))
    same = _section(found.out, "repeatability")["patients with the same state in all replicates"]
    assert (same["successes"], same["n"]) == (2, 2)


def test_times_of_several_zones(table: Write) -> None:
    head = "patient,received,reported\n"
    rows = head + "a,2026-10-25T02:30+02:00,2026-10-25T02:15+01:00\n"  # summer time ends between
    assert read_turnaround(table("zones", rows)) == {"a": 45}
    with pytest.raises(ManifestError, match="state it of both"):
        read_turnaround(table("half", head + "a,2026-10-25T02:30+02:00,2026-10-25T03:15\n"))
    rows = "time,run\n2026-10-25T02:15+01:00,second\n2026-10-25T02:30+02:00,first\n"
    assert [one.run.name for one in read_control(table("control", rows))] == ["first", "second"]
    with pytest.raises(ManifestError, match="state it of all"):
        read_control(table("mixed", rows + "2026-10-26T02:30,third\n"))


def test_the_band_around_the_threshold(
    make_run: MakeRun, table: Write, plan: Write, tmp_path: Path
) -> None:
    card = {"labels": ["AML", "APL"], "threshold": 0.5}
    rows = ["patient,day,replicate,run"]
    for day, replicate, p in (("1", "1", 0.6), ("1", "2", 0.7), ("2", "1", 0.6), ("2", "2", 0.7)):
        name = f"rep{day}{replicate}"
        _two_classes(make_run, name, {"P": p}, card)
        rows.append(f"P,{day},{replicate},{name}")
    run = _two_classes(make_run, "run", {"a": 0.99, "b": 0.5, "c": 0.45, "d": 0.02}, card)
    text = "[study]\njudged_by = 'estimate'\n[repeatability]\nmax_share_in_band = 0.4"
    found = millie.validate(
        plan(text), run, tmp_path / "out", replicates=table("replicates", "\n".join(rows))
    )
    shown = _section(found.out, "repeatability")
    half = shown["half width of that band"]["value"]
    within = shown["standard deviation within the laboratory"]["value"]
    assert half == pytest.approx(1.6449 * within, rel=1e-4)
    assert abs(_log_odds(0.45)) < half < abs(_log_odds(0.02))
    (one,) = found.rows()
    assert (one["observed"].split(" ")[0], one["outcome"]) == ("0.500", "not met")


def _two_classes(
    make_run: MakeRun, name: str, odds: dict[str, float], card: dict[str, object]
) -> Path:
    """A run of a model without health: probability of APL by patient."""
    folder = make_run(name, dict.fromkeys(odds, "AML"), card=card)
    path = folder / "predictions.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    for one in content["patients"]:
        p = odds[one["patient"]]
        one["probabilities"] = {"AML": 1 - p, "APL": p}
        one["ranges"] = {"AML": [1 - p, 1 - p], "APL": [p, p]}
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_the_same_photographs_again_are_named(
    make_run: MakeRun, table: Write, plan: Write, tmp_path: Path
) -> None:
    run = make_run("run", {"a": "AML"})
    rows = "patient,day,replicate,run\na,1,1,run\na,1,2,run\na,2,1,gone\n"
    (tmp_path / "copy").mkdir()
    found = millie.validate(plan(""), run, tmp_path / "out", replicates=table("r", rows))
    assert any("gone" in p.message for p in found.problems)
    page = found.report.read_text(encoding="utf-8")
    assert "no day with two replicates, or no patient with two days" in page
    with pytest.raises(ManifestError, match="day 1, replicate 1 stands here twice"):
        millie.validate(plan(""), run, tmp_path / "two", replicates=table(
            "twice", "patient,day,replicate,run\na,1,1,run\na,1,1,run\n"))  # fmt: skip


def test_copies_of_cells_in_two_examinations_are_no_replicates(
    make_run: MakeRun, table: Write, plan: Write, tmp_path: Path
) -> None:
    run, again = make_run("run", {"a": "AML"}), make_run("again", {"a": "AML"})
    (again / "store" / "a.h5").write_bytes((run / "store" / "a.h5").read_bytes())
    rows = "patient,day,replicate,run\na,1,1,run\na,2,1,again\n"
    found = millie.validate(plan(""), run, tmp_path / "out", replicates=table("r", rows))
    assert "say nothing about repeatability" in found.report.read_text(encoding="utf-8")


def test_counts_are_compared_with_the_cells_of_the_run(
    make_run: MakeRun, table: Write, plan: Write, tmp_path: Path
) -> None:
    run = make_run("run", {f"p{i}": ("AML", 0.3 + 0.1 * i) for i in range(7)})
    cells = np.arange(3.0, 10.0)  # of the bags that the fixture makes
    by_eye = cells + np.array([1, 0, 2, 0, 1, 0, 1])
    rows = "patient,leukocytes,abnormal_percent\n" + "".join(
        f"p{i},{n:g},{40 + 5 * i}\n" for i, n in enumerate(by_eye)
    )
    text = (
        "[study]\njudged_by = 'estimate'\n[leukocytes]\nmin_slope = 0.5\nmax_slope = 1.5\n"
        "max_bias_cells = 0.5\nmax_limit_cells = 3\n[abnormal_cells]\nmax_bias_percent_points = 50"
    )
    found = millie.validate(plan(text), run, tmp_path / "out", counts=table("counts", rows))
    shown = _section(found.out, "leukocytes")
    line, differences = passing_bablok(by_eye, cells), bland_altman(by_eye, cells)
    assert shown["Passing-Bablok slope"]["value"] == pytest.approx(line.slope.value)
    assert shown["mean difference"]["low"] == pytest.approx(differences.bias.low)
    outcomes = {one["key"]: (one["outcome"], one["observed"]) for one in found.rows()}
    assert outcomes["max_bias_cells"][0] == "not met"
    assert outcomes["max_bias_cells"][1].startswith("0.714 cells")  # without its sign
    assert outcomes["max_limit_cells"][0] == "met"
    with (run / "cells.csv").open(encoding="utf-8-sig", newline="") as stream:
        own = [row for row in csv.DictReader(stream) if row["patient"] == "p0"]
    share = np.mean([1 - float(row["probability_normal"]) >= 0.5 for row in own])
    content = json.loads((found.out / "validation.json").read_text(encoding="utf-8"))
    (section,) = [one for one in content["sections"] if one["key"] == "abnormal_cells"]
    assert section["tables"][0]["rows"][0][:3] == ["p0", "40", f"{100 * share:.4g}"]


def test_too_few_counts_are_not_tested(
    make_run: MakeRun, table: Write, plan: Write, tmp_path: Path
) -> None:
    run = make_run("run", {"a": "AML", "b": "AML"})
    text = "[leukocytes]\nmin_slope = 0.9"
    counts = table("counts", "patient,leukocytes\na,5\nb,\nz,4\n")
    found = millie.validate(plan(text), run, tmp_path / "out", counts=counts)
    (one,) = found.rows()
    assert (one["outcome"], one["note"]) == ("not tested", "1 patients are too few or too alike")
    assert [(p.patient, p.message) for p in found.problems] == [
        ("z", "in the table of counts, in no run: not used")
    ]
    with pytest.raises(ManifestError, match="got '500', expected 0 to 100"):
        millie.validate(plan(text), run, tmp_path / "two", counts=table(
            "bad", "patient,abnormal_percent\na,500\n"))  # fmt: skip
    with pytest.raises(ManifestError, match="no column leukocytes or abnormal_percent"):
        millie.validate(plan(text), run, tmp_path / "two", counts=table("no", "patient,x\na,1\n"))


def test_a_control_slide_that_drifts_is_rejected(
    make_run: MakeRun, table: Write, plan: Write, tmp_path: Path
) -> None:
    odds = [0.05, 0.06, 0.05, 0.06, 0.05, 0.06, 0.05, 0.3]
    rows = ["time,run"]
    for day, p in enumerate(odds, start=1):
        run = make_run(f"c{day}", {"slide": ("NO_SIGNAL", p)}, day=day)
        rows.insert(1, f"2026-01-0{day}T08:00,c{day}")  # the latest first: sorted by time
    text = "[control]\nbaseline_points = 6\nmax_rejections = 0"
    control = table("control", "\n".join(rows))
    found = millie.validate(plan(text), run, tmp_path / "out", control=control)
    (one,) = found.rows()
    assert (one["outcome"], one["observed"]) == ("not met", "1 (n = 2)")
    content = json.loads((found.out / "validation.json").read_text(encoding="utf-8"))
    (section,) = [s for s in content["sections"] if s["key"] == "control"]
    assert section["tables"][0]["rows"][-1][-1] == "1-2s, 1-3s"
    assert [row[-1] for row in section["tables"][0]["rows"][:7]] == ["baseline"] * 6 + ["–"]
    baseline = [_log_odds(p) for p in odds[:6]]
    shown = _section(found.out, "control")
    assert shown["mean of the chart"]["value"] == pytest.approx(np.mean(baseline))
    assert shown["standard deviation of the chart"]["value"] == pytest.approx(
        np.std(baseline, ddof=1)
    )
    stated = plan("[control]\nmean_log_odds = 0\nsd_log_odds = 5\nmax_rejections = 0")
    other = millie.validate(stated, run, tmp_path / "other", control=control)
    assert other.rows()[0]["observed"] == "0 (n = 8)"


def test_a_control_slide_without_enough_points(
    make_run: MakeRun, table: Write, plan: Write, tmp_path: Path
) -> None:
    run = make_run("run", {"a": "NO_SIGNAL", "b": "NO_SIGNAL"})
    text = "[control]\nmax_rejections = 0"
    control = table("control", "time,run,name\n2026-01-01,run,a\n2026-01-02,run,\n")
    found = millie.validate(plan(text), run, tmp_path / "out", control=control)
    assert found.rows()[0]["note"].startswith("1 examinations with a result: the first 20")
    assert [p.message for p in found.problems] == [
        f"{run} holds 2 patients and no name is given"
    ]  # fmt: skip
    with pytest.raises(ManifestError, match="got 'Monday', expected a time such as"):
        read_control(table("bad", "time,run\nMonday,run\n"))


def test_turnaround(make_run: MakeRun, table: Write, plan: Write, tmp_path: Path) -> None:
    run = make_run("run", {f"p{i}": "AML" for i in range(10)})
    times = table("times", "patient,received,reported\n" + "".join(
        f"p{i},2026-01-01T08:00,2026-01-01T08:{10 + i}\n" for i in range(10)))  # fmt: skip
    text = "[turnaround]\nmax_median_minutes = 18\nmax_p90_minutes = 60"
    found = millie.validate(plan(text), run, tmp_path / "out", turnaround=times)
    outcomes = {one["key"]: one for one in found.rows()}
    assert outcomes["max_median_minutes"]["outcome"] == "met"
    assert outcomes["max_median_minutes"]["observed"] == "14.5 min (11 to 18; n = 10)"
    # ten patients do not bound a 90th percentile from above
    assert outcomes["max_p90_minutes"]["outcome"] == "not met"
    assert "leave the end of the interval open" in outcomes["max_p90_minutes"]["note"]
    assert read_turnaround(table("m", "patient,minutes\na,12.5\n")) == {"a": 12.5}
    with pytest.raises(ManifestError, match="expected 0 or more"):
        read_turnaround(table("b", "patient,received,reported\na,2026-01-02,2026-01-01\n"))
    with pytest.raises(ManifestError, match="column minutes, or the columns received"):
        read_turnaround(table("c", "patient,x\na,1\n"))
