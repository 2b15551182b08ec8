"""The whole of it: rates, alarms, files, exit codes."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import millie
from millie.cli import commands as cli
from millie.errors import ConfigError
from millie.outputs.monitor.rates import compare
from millie.outputs.monitor.report import Monitored, rate_rows
from millie.outputs.monitor.runs import read_series
from millie.outputs.monitor.streams import streams_of
from millie.pipeline.verify import verify
from millie.types import Problem, Reason

MakeRun = Callable[..., Path]


@pytest.fixture
def steady(make_run: MakeRun) -> list[Path]:
    """Two runs of 8 patients, one of each indeterminate."""
    return [
        make_run(f"run{d}", {f"d{d}p{i}": "INDETERMINATE" if i == 0 else "AML" for i in range(8)},
                 day=d)
        for d in (1, 2)
    ]  # fmt: skip


@pytest.fixture
def changed(make_run: MakeRun) -> Path:
    """A run in which nobody got a call, one without a result."""
    lost = Problem("d3p9", "", "NoCellsError", "d3p9: no cell in 2 images", fatal=True)
    few = Reason("TOO_FEW_CELLS", "12 usable, at least 50 needed", "Photograph more cells.")
    states = {f"d3p{i}": "INDETERMINATE" for i in range(8)}
    return make_run("run3", states, day=3, reasons=[few], problems=[lost])


def _compared(
    runs: list[Path], baseline: int, expected: dict[str, float] | None = None
) -> Monitored:
    (series,), _ = read_series(runs)
    return Monitored(series, tuple(compare(series, baseline, expected or {}, 0.05)), (), 0.05)


def test_no_alarm_without_a_change(steady: list[Path]) -> None:
    found = _compared(steady, 1)
    assert found.alarms == []
    row = next(r for r in rate_rows([found]) if r["name"] == "INDETERMINATE" and r["p"] is not None)
    assert (row["count"], row["patients"], row["baseline_count"]) == (1, 8, 1)
    assert row["low"] == pytest.approx(0.00316, abs=1e-5)  # Clopper-Pearson of 1 of 8
    assert row["high"] == pytest.approx(0.52651, abs=1e-5)


def test_a_changed_run_is_named(steady: list[Path], changed: Path) -> None:
    found = _compared([changed, *steady], 2)
    states = [line for line in found.alarms if "INDETERMINATE" in line]
    assert f"INDETERMINATE more often in run 3 ({changed}): 8 of 9 patients" in states[0]
    assert "2 of 16 in the baseline" in states[0]
    tested = [one for one in found.rates if one.p is not None]
    assert {one.run for one in tested} == {2}
    assert {one.name for one in tested} >= {"AML", "FAILED", "TOO_FEW_CELLS"}


def test_against_a_known_rate_the_first_run_is_tested_too(changed: Path) -> None:
    found = _compared([changed], 0, {"INDETERMINATE": 0.1})
    (one,) = [one for one in found.rates if one.p is not None]
    assert one.p == pytest.approx(9 * 0.1**8 * 0.9 + 0.1**9)
    assert one.alarm
    assert "10% expected" in found.alarms[0]


def test_one_run_alone_is_said_to_be_alone(steady: list[Path], tmp_path: Path) -> None:
    found = millie.monitor(steady[0], tmp_path / "out")
    assert "one run only: nothing to compare it with" in found.lines[0]
    assert found.lines[0] in found.report.read_text(encoding="utf-8")


def test_where_all_runs_are_the_baseline_it_is_said(steady: list[Path]) -> None:
    assert "no run is left beside the baseline" in _compared(steady, 2).line
    assert "no rate is tested" not in _compared(steady, 1).line


def test_the_files_agree_with_each_other(steady: list[Path], changed: Path, tmp_path: Path) -> None:
    found = millie.monitor([*steady, changed], tmp_path / "out", baseline=2)
    page = found.report.read_text(encoding="utf-8")
    assert all(line.replace("'", "&#39;") in page for line in found.alarms)
    assert "<script" not in page
    content = json.loads((found.out / "monitor.json").read_text(encoding="utf-8"))
    assert content["models"][0]["alarms"] == list(found.alarms)
    with (found.out / "rates.csv").open(encoding="utf-8-sig", newline="") as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == [r["name"] for r in found.rows()]
    with (found.out / "patients.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 25
    assert [row["state"] for row in rows if not row["score"]] == ["FAILED"]
    whole = next(verify([str(found.out)]))
    assert (whole.kind, whole.facts, whole.problems) == ("monitor", "3 runs", ())
    (found.out / "rates.csv").unlink()
    assert [p.source for p in next(verify([str(found.out)])).problems] == ["rates.csv"]


def test_the_same_runs_give_the_same_bytes(steady: list[Path], tmp_path: Path) -> None:
    _move_stores(steady)
    first = millie.monitor(steady, tmp_path / "one")
    second = millie.monitor(steady[::-1], tmp_path / "two")
    for path in first.out.iterdir():
        assert path.read_bytes() == (second.out / path.name).read_bytes()


def test_a_run_of_other_scores_is_named(make_run: MakeRun) -> None:
    first = make_run("a", {f"a{i}": "AML" for i in range(8)}, p_apl=0.1)
    other = make_run("b", {f"b{i}": "AML" for i in range(8)}, day=2, p_apl=0.4)
    (series,), _ = read_series([first, other])
    found = Monitored(series, (), tuple(streams_of(series, 1, 0.05)), 0.05)
    (line,) = [line for line in found.alarms if "probability of APL" in line]
    assert f"differs in run 2 ({other}) from the baseline: median 0.4" in line
    assert not found.streams[0].shifts.keys() & {0}


def _move_stores(runs: list[Path]) -> None:
    for run in runs:
        (run / "store").rename(run / "moved")


def test_without_the_stores_the_calls_are_still_followed(
    steady: list[Path], tmp_path: Path
) -> None:
    _move_stores(steady)
    found = millie.monitor(steady, tmp_path / "out")
    content = json.loads((found.out / "monitor.json").read_text(encoding="utf-8"))
    assert [s["name"] for s in content["models"][0]["streams"]] == ["score", "sharpness"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"expected": {"APL": 0.1}}, "no state 'APL': the states are AML, APL_SUSPECT, FAILED"),
        ({"expected": {"AML": 1.5}}, "expected 0 to 1"),
        ({"baseline": -1}, "expected 0 or more"),
        ({"level": 0.0}, "between 0 and 1"),
    ],
)
def test_wrong_words_are_refused(
    words: dict[str, object], told: str, steady: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        millie.monitor(steady, tmp_path / "out", **words)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_report_can_be_made_again(
    steady: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("millie.outputs.monitor.report.render", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            millie.monitor(steady[0], out)
    assert not (out / "report.html").exists()
    _move_stores(steady)
    assert millie.monitor(steady[0], out).report.is_file()


def _interrupted(*_: object, **__: object) -> str:
    raise KeyboardInterrupt


def test_results_are_not_written_over_calls(steady: list[Path]) -> None:
    with pytest.raises(ConfigError, match="name another folder"):
        millie.monitor(steady, steady[0])


def _run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["millie", "monitor", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_exit_codes(
    steady: list[Path],
    changed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = ("--out", tmp_path / "out")
    _move_stores([*steady, changed])
    assert _run(monkeypatch, *steady, *out) == 0
    assert "No alarm." in capsys.readouterr().out
    assert _run(monkeypatch, *steady, tmp_path / "gone", *out) == 1
    assert "gone" in capsys.readouterr().out
    assert _run(monkeypatch, tmp_path / "gone", *out) == 2
    assert _run(monkeypatch, *steady, *out, "--expected", "AML") == 2
    assert "STATE=RATE" in capsys.readouterr().err
    assert _run(monkeypatch, changed, "--expected", "INDETERMINATE=0.1", *out) == 3
    shown = capsys.readouterr().out
    assert len([line for line in shown.splitlines() if line.startswith("ALARM  ")]) >= 1
