"""The whole of it: figures, verdict, files, exit codes, on small runs."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

import millie
from millie.cli import commands as cli
from millie.cli.validation import sample_sizes
from millie.errors import ConfigError, DataError, ManifestError, MissingFileError
from millie.outputs.validation.plan import example, read_plan
from millie.pipeline.verify import verify
from millie.statistics.intervals import clopper_pearson
from millie.types import Finding, Problem

MakeRun = Callable[..., Path]
Write = Callable[..., Path]

STATES = {
    **{f"a{i}": "AML" for i in range(8)},
    "p0": "APL_SUSPECT", "p1": "APL_SUSPECT", "p2": "URGENT_INDETERMINATE", "p3": "AML",
    **{f"n{i}": "NO_SIGNAL" for i in range(6)}, "n6": "INDETERMINATE", "n7": "AML",
}  # fmt: skip
TRUTH = "patient,label\n" + "".join(
    f"{name},{ {'a': 'AML', 'p': 'APL', 'n': 'healthy'}[name[0]] }\n" for name in STATES
)
PLAN = """
[study]
judged_by = "estimate"
[agreement]
labels = { healthy = "normal" }
min_sensitivity = 0.9
min_specificity = 0.8
max_without_call = 0.2
min_kappa = 0.5
[agreement.classes.APL]
min_sensitivity = 0.6
"""


@pytest.fixture
def run(make_run: MakeRun) -> Path:
    return make_run("run", STATES)


def _figures(folder: Path, section: str = "agreement") -> dict[str, dict[str, str]]:
    with (folder / "figures.csv").open(encoding="utf-8-sig", newline="") as stream:
        return {row["figure"]: row for row in csv.DictReader(stream) if row["section"] == section}


def test_agreement_is_counted_both_ways(
    run: Path, plan: Write, table: Write, tmp_path: Path
) -> None:
    found = millie.validate(plan(PLAN), run, tmp_path / "out", table("truth", TRUTH))
    rows = _figures(found.out)

    def shares(name: str) -> tuple[int, int]:
        return int(rows[name]["successes"]), int(rows[name]["n"])

    without, only = "without a call counted as disagreement", "with a call only"
    assert shares(f"overall agreement, {without}") == (16, 20)
    assert shares(f"overall agreement, {only}") == (16, 18)
    assert shares(f"any disease: sensitivity, {without}") == (11, 12)
    assert shares(f"any disease: sensitivity, {only}") == (11, 11)
    assert shares(f"any disease: specificity, {without}") == (6, 8)
    assert shares(f"APL against the rest: sensitivity, {without}") == (2, 4)
    assert shares(f"APL against the rest: sensitivity, {only}") == (2, 3)
    assert shares("APL against the rest: called or urgent, of patients that have it") == (3, 4)
    assert shares("patients without a call") == (2, 20)
    exact = clopper_pearson(11, 12)
    low, high = (float(rows[f"any disease: sensitivity, {without}"][e]) for e in ("low", "high"))
    assert (low, high) == pytest.approx((exact.low, exact.high))
    outcomes = {one["key"]: one["outcome"] for one in found.rows()}
    assert outcomes == {
        "min_sensitivity": "met", "min_specificity": "not met", "max_without_call": "met",
        "min_kappa": "met", "classes.APL.min_sensitivity": "not met",
    }  # fmt: skip
    assert found.line == "5 criteria: 3 met, 2 not met"


def test_by_the_interval_few_patients_prove_little(
    run: Path, plan: Write, table: Write, tmp_path: Path
) -> None:
    text = PLAN.replace('"estimate"', '"interval"\nindeterminate = "left_out"')
    found = millie.validate(plan(text), run, tmp_path / "out", table("truth", TRUTH))
    (one,) = [c for c in found.rows() if c["key"] == "min_sensitivity"]
    assert "with a call only" in one["what"]
    assert one["observed"] == "1.000 (0.715 to 1.000; 11/11)"
    assert (one["outcome"], one["note"]) == ("not met", "")


def test_the_files_agree_and_are_verified(
    run: Path, plan: Write, table: Write, tmp_path: Path
) -> None:
    path = plan(PLAN)
    found = millie.validate(path, run, tmp_path / "out", table("truth", TRUTH))
    page = found.report.read_text(encoding="utf-8")
    content = json.loads((found.out / "validation.json").read_text(encoding="utf-8"))
    with (found.out / "verdict.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["outcome"] for row in rows] == [one["outcome"] for one in content["criteria"]]
    assert content["verdict"] == {"line": found.line, "met": 3, "not met": 2, "not tested": 0}
    assert "<script" not in page
    assert all(one["observed"] in page for one in content["criteria"])
    for told in (content["plan_sha256"], "ab" * 32, "does not claim compliance", "Signature"):
        assert told in page
    assert str(tmp_path) not in page.replace(str(run), "")
    with (found.out / "patients.csv").open(encoding="utf-8-sig", newline="") as stream:
        patients = {row["patient"]: row for row in csv.DictReader(stream)}
    assert patients["n7"]["agrees"] == "0"
    assert patients["n6"]["called"] == patients["n6"]["agrees"] == ""
    whole = next(verify([str(found.out)]))
    assert (whole.kind, whole.facts, whole.problems) == ("validation", "5 criteria", ())
    (found.out / "plan.toml").write_text("")
    assert [p.source for p in next(verify([str(found.out)])).problems] == ["plan.toml"]
    assert path.read_text(encoding="utf-8") == PLAN


def test_the_same_inputs_give_the_same_bytes(
    run: Path, plan: Write, table: Write, tmp_path: Path
) -> None:
    truth = table("truth", TRUTH)
    first = millie.validate(plan(PLAN), run, tmp_path / "one", truth)
    second = millie.validate(plan(PLAN), run, tmp_path / "two", truth)
    for name in ("report.html", "verdict.csv", "figures.csv", "patients.csv", "validation.json"):
        assert (first.out / name).read_bytes() == (second.out / name).read_bytes()


def test_another_plan_needs_another_folder(
    run: Path, plan: Write, table: Write, tmp_path: Path
) -> None:
    truth, out = table("truth", TRUTH), tmp_path / "out"
    millie.validate(plan(PLAN), run, out, truth)
    millie.validate(plan(PLAN), run, out, truth)
    before = (out / "report.html").read_bytes()
    with pytest.raises(ConfigError, match="made by another plan"):
        millie.validate(plan(PLAN.replace("0.9", "0.5")), run, out, truth)
    assert (out / "report.html").read_bytes() == before


def test_patients_that_the_run_knows_from_training_are_told_without_a_store(
    make_run: MakeRun, plan: Write, table: Write, tmp_path: Path
) -> None:
    run = make_run("run", {"a0": "AML", "n0": "NO_SIGNAL"})
    record = json.loads((run / "predictions.json").read_text(encoding="utf-8"))
    note = Problem("a0", "", Finding.TRAINED_ON, "1 of 1 images are known", note=True)
    record["problems"] = [asdict(note)]
    (run / "predictions.json").write_text(json.dumps(record), encoding="utf-8")
    truth = table("truth", "patient,label\na0,AML\nn0,normal\n")
    found = millie.validate(plan(PLAN), run, tmp_path / "out", truth)
    told = " ".join(found.remarks)
    assert "trained on at least 1 of the 2 patients" in told
    assert "is not known" not in told
    text = (tmp_path / "out" / "patients.csv").read_text(encoding="utf-8-sig")
    rows = csv.DictReader(text.splitlines())
    assert {row["patient"]: row["trained_on"] for row in rows} == {"a0": "1", "n0": ""}


def test_what_must_be_considered_is_said(
    make_run: MakeRun, plan: Write, table: Write, tmp_path: Path
) -> None:
    run = make_run("run", {"a0": "AML", "n0": "NO_SIGNAL"}, failed=("x9",))
    late = plan("[study]\nfixed_on = 2026-03-01\n" + PLAN.replace("[study]\n", ""))
    truth = table("truth", "patient,label\na0,AML\nn0,normal\nx9,AML\ngone,AML\n")
    found = millie.validate(late, run, tmp_path / "out", truth, trained_on=run / "store")
    told = " ".join(found.remarks)
    for words in ("trained on 2 of the 3 patients", "before the plan was fixed on 2026-03-01",
                  "1 of 3 patients have no result", "name it"):  # fmt: skip
        assert words in told
    assert ("gone", "in the reference, in no run: not judged") in {
        (p.patient, p.message) for p in found.problems
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[agreement]\nmin_sensitivty = 0.9", "unknown key 'agreement.min_sensitivty'; .* knows"),
        ("[agrement]\n", "unknown key 'agrement'; the plan knows study, agreement"),
        ("[agreement]\nmin_sensitivity = 95", "agreement.min_sensitivity: .* got 95"),
        ("[agreement.classes.APL]\nmin_ppa = 1", "knows min_sensitivity, min_specificity"),
        ("[interference]\nchanges = ['smoke']", "no change 'smoke'; known are blur"),
        ("[number_of_cells]\nat_cells = 33", "at_cells 33 is not among cells"),
        ("[dilution]\nshares_percent = [0]", "shares_percent"),
        ("[study", "not valid TOML"),
    ],
)
def test_a_wrong_plan_is_refused(
    text: str, told: str, run: Path, plan: Write, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        millie.validate(plan(text), run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("truth", "error", "told"),
    [
        ("patient,label\nx,AML\n", DataError, "not one of its 1 patients is in the runs"),
        ("patient,label\na0,CML\n", DataError, "'CML': the model test-model 1 knows AML, APL"),
        ("patient,label\na0,AML\na0,APL\n", ManifestError, "a0 is APL here and AML above"),
        ("patient,diagnosis\na0,AML\n", ManifestError, "column 'label' is missing"),
        ("patient,label\na0,\n", ManifestError, "column 'label' is empty"),
        ("patient,label\n", ManifestError, "no rows"),
    ],
)
def test_a_wrong_reference_is_refused(
    truth: str, error: type[Exception], told: str, run: Path, plan: Write, table: Write,
    tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(error, match=told):
        millie.validate(plan(PLAN), run, tmp_path / "out", table("truth", truth))


def test_runs_that_cannot_be_used(
    make_run: MakeRun, run: Path, plan: Write, tmp_path: Path
) -> None:
    other = make_run("other", {"z": "AML"}, card={"sha256": "cd" * 32})
    with pytest.raises(ConfigError, match="runs of 2 models or settings"):
        millie.validate(plan(PLAN), [run, other], tmp_path / "out")
    with pytest.raises(MissingFileError, match="is not a folder"):
        millie.validate(plan(PLAN), tmp_path / "gone", tmp_path / "out")
    none = make_run("none", {})
    with pytest.raises(DataError, match="calls of 0 patients"):
        millie.validate(plan(PLAN), none, tmp_path / "out")
    found = millie.validate(plan(PLAN), [run, none], tmp_path / "out")
    assert any("calls of 0 patients" in problem.message for problem in found.problems)
    with pytest.raises(ConfigError, match="name another folder"):
        millie.validate(plan(PLAN), run, run)


def test_one_diagnosis_only_and_an_unknown_disease(
    run: Path, plan: Write, table: Write, tmp_path: Path
) -> None:
    truth = table("truth", "patient,label\na0,AML\na1,AML\n")
    found = millie.validate(plan(PLAN), run, tmp_path / "out", truth)
    outcomes = {one["key"]: one["outcome"] for one in found.rows()}
    assert outcomes["min_specificity"] == outcomes["min_kappa"] == "not tested"
    assert "one diagnosis only (AML)" in found.report.read_text(encoding="utf-8")
    text = PLAN.replace('healthy = "normal"', 'CML = "other"')
    truth = table("truth", "patient,label\na0,CML\nn0,normal\n")
    other = millie.validate(plan(text), run, tmp_path / "other", truth)
    rows = _figures(other.out)
    assert rows["any disease: sensitivity, with a call only"]["successes"] == "1"
    assert rows["overall agreement, with a call only"]["successes"] == "1"


def test_without_tables_all_is_reported_as_not_tested(
    run: Path, plan: Write, tmp_path: Path
) -> None:
    found = millie.validate(plan(example()), run, tmp_path / "out")
    assert {one["outcome"] for one in found.rows()} == {"not tested"}
    assert len({one["section"] for one in found.rows()}) == 8
    page = found.report.read_text(encoding="utf-8")
    for told in ("no reference table was given", "no table of replicates was given",
                 "The model is not on this machine", "no table of times was given"):  # fmt: skip
        assert told in page or told[0].upper() + told[1:] in page


def test_a_run_without_any_call(
    make_run: MakeRun, plan: Write, table: Write, tmp_path: Path
) -> None:
    run = make_run("run", {"a0": "INDETERMINATE"}, failed=("n0",))
    truth = table("truth", "patient,label\na0,AML\nn0,normal\n")
    text = '[study]\nindeterminate = "left_out"\n[agreement]\nmin_sensitivity = 0.5\nmin_kappa = 0'
    found = millie.validate(plan(text), run, tmp_path / "out", truth)
    assert [one["outcome"] for one in found.rows()] == ["not tested", "not tested"]
    lost = make_run("lost", {}, failed=("a0", "n0"))
    nobody = millie.validate(plan(text), lost, tmp_path / "nobody", truth)
    assert _figures(nobody.out)["patients without a call"]["successes"] == "2"


DOCS = Path(__file__).parents[3] / "docs" / "validation.md"


def test_the_page_for_laboratories_shows_what_is_there(tmp_path: Path) -> None:
    text = DOCS.read_text(encoding="utf-8")
    plan = text.partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "plan.toml").write_text(plan, encoding="utf-8")
    asked, _ = read_plan(tmp_path / "plan.toml")
    assert asked.number_of_cells is not None
    assert all(line in text for line in sample_sizes(0.95, 0.1, 0.9)[:2])


def _run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["millie", "validate", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command(
    run: Path,
    plan: Write,
    table: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("--run", run, "--reference", table("truth", TRUTH))
    assert _run(monkeypatch, plan(PLAN), *words, "--out", tmp_path / "out") == 3
    shown = capsys.readouterr().out
    assert "not met     agreement: any disease: specificity" in shown
    assert "5 criteria: 3 met, 2 not met." in shown
    easy = '[agreement]\nmax_without_call = 0.9\nlabels = { healthy = "normal" }'
    assert _run(monkeypatch, plan(easy), *words, "--out", tmp_path / "two") == 0
    assert _run(monkeypatch, plan(easy), *words) == 2
    assert "--example" in capsys.readouterr().err
    assert _run(monkeypatch, plan("x = 1"), *words, "--out", tmp_path / "three") == 2
    assert "unknown key 'x'" in " ".join(capsys.readouterr().err.split())
    assert _run(monkeypatch, "--example") == 0
    assert capsys.readouterr().out.strip() == example().strip()
    assert _run(monkeypatch, "--sample-size", "--expected", "1", "--width", "0.05") == 0
    assert capsys.readouterr().out.startswith("72 patients give")
    assert _run(monkeypatch, "--sample-size", "--at-least", "0.99") == 2
