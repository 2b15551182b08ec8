"""What stands beyond the headline of a study: flow, overlap, utility, subgroups, checklists."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from millie.bags.store import BagMeta, CellCrop, Store, write_bag
from millie.config import Config, PredictionConfig
from millie.outputs.model_card import CardFacts, model_card
from millie.outputs.report import write_report
from millie.outputs.study.bag_facts import read_store
from millie.outputs.study.characteristics import characteristics
from millie.outputs.study.checklists import SECTIONS, checklists, items
from millie.outputs.study.indeterminates import indeterminates
from millie.outputs.study.overlap_proof import prove
from millie.outputs.study.patient_flow import patient_flow
from millie.outputs.study.records import Study, read_study
from millie.outputs.study.subgroups import SUBGROUP_HEADER, age_group, subgroup_rows, subgroups
from millie.outputs.study.supplement import read_supplement
from millie.statistics.intervals import delong_interval
from millie.types import Cell, ImageKind, Patient, Problem, SourceRecord

from ..conftest import write_table

SIDE_PX = 48


def cell_image(seed: int) -> np.ndarray:
    """A crop of smooth random texture: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC))


def put_bag(
    store: Store, patient: Patient, seeds: list[int], digest: str, problems: list[Problem]
) -> None:
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    crops = [
        CellCrop(
            Cell(0, 10.0 * i, 5.0, 0, 0, 8, 8, 50.0, smudge=i == 0, quality=float(i != 1)),
            cell_image(seed), mask,
        )
        for i, seed in enumerate(seeds)
    ]  # fmt: skip
    sources = [SourceRecord("f.png", digest, ImageKind.FIELD, 0.1, 100, 100)]
    meta = BagMeta(SIDE_PX, 25.0, 0.5, "digest")
    write_bag(store.path_of(patient.id), patient, crops, sources, meta, problems)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Eight patients, two folds; ``p1`` (APL) and ``p6`` (AML) are called wrongly."""
    folder = tmp_path / "study"
    store = Store(folder / "bags")
    predictions = []
    for i in range(8):
        label = "APL" if i % 2 else "AML"
        patient = Patient(
            f"p{i}", label, (), site="A" if i < 4 else "B", sex="F" if i % 3 else "",
            age=None if i == 7 else 10.0 + 9 * i,
        )  # fmt: skip
        lost = [Problem(f"p{i}", "x.jpg", "ImageError", "cut short")] if i == 2 else []
        put_bag(store, patient, [100 * i + j for j in range(3)], f"{i:064x}", lost)
        p = {1: 0.3, 6: 0.7}.get(i, 0.9 if label == "APL" else 0.1)
        call = "APL" if p >= 0.5 else "AML"
        predictions.append([f"p{i}", label, 0, i // 4, 1 - p, p, 0.5, call, 100 * i + 10])
    put_bag(store, Patient("extra", None, ()), [1], "e" * 64, [])
    failed = Problem("lost", "", "NoCellsError", "no cell", fatal=True)
    store.describe("drawn", Config(), ["AML", "APL"], [failed])
    write_table(
        folder / "predictions.csv",
        ["patient", "label", "repeat", "fold", "probability_AML", "probability_APL", "threshold",
         "call", "n_cells"],
        predictions,
    )  # fmt: skip
    metrics = {
        "classes": ["AML", "APL"], "positive": "APL", "n_by_class": {"AML": 4, "APL": 4},
        "headline": {"auc": {"value": 0.9, "low": 0.6, "high": 0.99, "method": "DeLong"}},
        "confusion": [[3, 1], [1, 3]], "store": "bags", "protocol": "2 folds",
        "environment": {"millie": "0"},
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(metrics))
    halves = [[f"p{i}" for i in range(4)], [f"p{i}" for i in range(4, 8)]]
    splits = [
        {"repeat": 0, "fold": f, "train": halves[1 - f][1:], "validation": halves[1 - f][:1],
         "test": halves[f]}
        for f in range(2)
    ]  # fmt: skip
    (folder / "splits.json").write_text(json.dumps({"assignments": splits}))
    return read_study(folder)


def read_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8-sig").splitlines()))


def bags_of(study: Study) -> Store:
    return Store(study.folder / "bags")


def test_flow_counts_everybody_once(study: Study) -> None:
    flow = patient_flow(study, read_store(bags_of(study)))
    assert [step.n for step in flow.steps] == [10, 9, 8, 8, 8]
    for before, after in zip(flow.steps, flow.steps[1:], strict=False):
        assert before.n - after.n == sum(n for _, n in after.left_out)
    assert flow.steps[1].left_out == (("no leukocytes found", 1),)
    assert flow.steps[-1].by_class == {"AML": 4, "APL": 4}
    assert flow.counts["cells"] == 24
    assert flow.counts["of these, smudge cells"] == 8
    assert flow.counts["images not used"] == 1


def test_nothing_shared_is_proven(study: Study) -> None:
    store = bags_of(study)
    bags = read_store(store).of(p.patient for p in study.patients)
    proof = prove(study.folder, store, bags)
    assert proof.clean
    assert (proof.n_splits, proof.n_files, proof.n_cells, proof.n_alike) == (2, 8, 24, 0)


def test_equal_files_and_copied_cells_are_found(study: Study) -> None:
    store = bags_of(study)
    put_bag(store, Patient("p5", "APL", ()), [7, 8, 9], f"{0:064x}", [])
    put_bag(store, Patient("p6", "AML", ()), [602, 700, 602], f"{6:064x}", [])
    bags = read_store(store).of(p.patient for p in study.patients)
    proof = prove(study.folder, store, bags)
    assert not proof.clean
    assert [(p.first, p.second, p.splits) for p in proof.files] == [("p0", "p5", 2)]
    assert [(p.first, p.second, p.splits) for p in proof.cells] == [("p6", "p7", 0)]
    assert prove(study.folder, store, bags) == proof


def test_the_search_is_done_again_when_bags_or_splits_change(study: Study) -> None:
    store = bags_of(study)
    patients = [p.patient for p in study.patients]
    assert prove(study.folder, store, read_store(store).of(patients)).clean
    put_bag(store, Patient("p5", "APL", ()), [0, 1, 2], f"{5:064x}", [])
    proof = prove(study.folder, store, read_store(store).of(patients))
    assert proof.n_alike == 3
    (study.folder / "splits.json").unlink()
    assert prove(study.folder, store, read_store(store).of(patients)).clean


def test_subgroups_of_a_kind_count_every_patient(study: Study) -> None:
    bags = read_store(bags_of(study)).of(p.patient for p in study.patients)
    groups = subgroups(study, bags)
    totals: Counter[str] = Counter()
    for group in groups:
        totals[group.kind] += group.n_positive + group.n_negative
    assert totals == {"sex": 8, "age": 8, "site": 8}
    assert {g.name for g in groups if g.kind == "sex"} == {"f", "unknown"}
    site = next(g for g in groups if g.name == "A")
    assert (site.sensitivity.successes, site.sensitivity.n) == (1, 2)


@pytest.mark.parametrize(
    ("age", "group"),
    [(None, ""), (0, "0 to 17 years"), (18, "18 to 39 years"), (59.5, "40 to 59 years"),
     (60, "60 years or over")],
)  # fmt: skip
def test_age_groups(age: float | None, group: str) -> None:
    assert age_group(age) == group


def test_auc_of_a_subgroup_is_delongs(study: Study) -> None:
    bags = read_store(bags_of(study)).of(p.patient for p in study.patients)
    groups = subgroups(study, bags)
    rows = [dict(zip(SUBGROUP_HEADER, row, strict=True)) for row in subgroup_rows(groups)]
    sites = {row["group"]: row for row in rows if row["by"] == "site"}
    for site, own in (("A", range(4)), ("B", range(4, 8))):
        patients = [next(p for p in study.patients if p.patient == f"p{i}") for i in own]
        truth = np.array([p.label == "APL" for p in patients])
        known = delong_interval(truth, np.array([p.probability for p in patients]))
        found = [sites[site][name] for name in ("auc", "auc_low", "auc_high")]
        assert found == [known.value, known.low, known.high]
    for group, row in zip(groups, rows, strict=True):
        assert (row["auc"] is None) == (0 in {group.n_positive, group.n_negative})


def test_indeterminates_move_figures_in_the_expected_directions(study: Study) -> None:
    found = indeterminates(study, PredictionConfig(min_cells=50, min_cells_negative=200))
    everybody, without, worst = found.ways
    assert everybody.n == worst.n == 8
    assert found.share.successes == 8 - without.n > 0
    for side in ("sensitivity", "specificity"):
        assert getattr(worst, side).value <= getattr(everybody, side).value
    none = indeterminates(study, PredictionConfig(min_cells=1, min_cells_negative=1))
    assert none.share.successes == 0
    assert none.ways[0].sensitivity == none.ways[2].sensitivity


def test_the_limit_of_negatives_is_for_labels_that_mean_no_disease(study: Study) -> None:
    """As in a prediction: AML is called from 50 cells on, a normal film only from 200 on."""
    cells = 100
    patients = [replace(p, n_cells=cells) for p in study.patients]
    config = PredictionConfig(min_cells=50, min_cells_negative=200)
    found = indeterminates(replace(study, patients=patients), config)
    assert (found.negative, found.share.successes) == ((), 0)
    relabelled = [replace(p, call="normal" if p.call == "AML" else p.call) for p in patients]
    other = replace(study, classes=("APL", "normal"), patients=relabelled)
    normal = sum(p.call == "normal" for p in relabelled)
    assert normal > 0
    assert indeterminates(other, config).share.successes == normal


def test_characteristics_say_what_is_missing(study: Study) -> None:
    bags = read_store(bags_of(study)).of(p.patient for p in study.patients)
    rows = {row.name: row.values for row in characteristics(study, bags)}
    assert rows["patients"] == ("4", "4")
    assert "1 missing" in rows["age, years"][1]
    assert rows["site"] == ("A: 2, B: 2", "A: 2, B: 2")
    assert "scanner" not in rows


def test_items_are_those_of_the_guidelines() -> None:
    counts = Counter(item.guideline for item in items())
    assert counts == {"CLAIM 2024": 44, "TRIPOD+AI 2024": 52, "STARD-AI 2025": 48}
    numbers = Counter((item.guideline, item.number) for item in items())
    assert set(numbers.values()) == {1}
    for guideline, last in (("CLAIM 2024", 44), ("TRIPOD+AI 2024", 27), ("STARD-AI 2025", 40)):
        own = [i.number.rstrip("abcdefg") for i in items() if i.guideline == guideline]
        assert list(dict.fromkeys(own)) == [str(n) for n in range(1, last + 1)]
    assert {item.section for item in items()} - {""} <= set(SECTIONS)


def test_checklists_fill_only_what_the_report_has() -> None:
    nothing = checklists(())
    assert all(c.n_filled == 0 for c in nothing)
    assert all("author must supply" in a.where for c in nothing for a in c.answers)
    flow = {a.item.number for a in checklists(["flow"])[0].answers if a.filled}
    assert "35" in flow
    everything = checklists(SECTIONS)
    assert all(0 < c.n_filled < len(c.answers) for c in everything)


def test_report_leaves_figures_and_tables_for_a_manuscript(study: Study) -> None:
    page = write_report(study.folder).read_text()
    for words in (
        "Patient flow",
        "Overlap check: no overlap found",
        "Clinical utility",
        "Subgroups",
        "Indeterminate results",
        "Missed <bdi>APL</bdi>: 1 patient, all shown",
        "STARD-AI 2025",
    ):
        assert words in page, words
    tables = {path.stem for path in (study.folder / "tables").glob("*.csv")}
    assert {
        "patient_flow",
        "subgroups",
        "overlap",
        "predictive_values",
        "checklists",
        "hashes",
        "indeterminates",
        "characteristics",
        "figures_of_merit",
        "confusion",
    } <= tables
    drawn = {path.name for path in (study.folder / "figures").iterdir()}
    assert {"roc.svg", "roc.pdf", "decision_curve.pdf", "precision_recall.svg"} <= drawn
    with (study.folder / "tables" / "hashes.csv").open(encoding="utf-8-sig", newline="") as stream:
        assert "8 bags" in {row["file"] for row in csv.DictReader(stream)}


def test_supplement_without_a_store_asks_the_author_for_more(study: Study) -> None:
    full = read_supplement(study, bags_of(study))
    bare = read_supplement(study, None)
    assert (bare.flow, bare.overlap, bare.subgroups) == (None, None, ())
    for less, more in zip(bare.checklists, full.checklists, strict=True):
        assert less.n_filled < more.n_filled


def test_robustness_is_shown_where_it_was_measured(study: Study) -> None:
    curve = {"name": "Blur", "x_label": "px", "measure": "ROC AUC", "points": [
        {"x": 0, "value": 0.9, "low": 0.8, "high": 0.95},
        {"x": 2, "value": 0.7, "low": 0.5, "high": 0.8},
    ]}  # fmt: skip
    (study.folder / "robustness.json").write_text(json.dumps({"curves": [curve]}))
    assert 'id="robustness"' in write_report(study.folder).read_text()
    assert (study.folder / "figures" / "robustness_blur.pdf").is_file()


FACTS = CardFacts(
    "m", ("AML", "APL"), "APL", 0.4, 1.5, 2, "efficientnet_lite0", "max",
    {"cohort": "drawn", "n_patients": 8, "n_by_class": {"AML": 4, "APL": 4}, "millie": "0.1",
     "seed": 0}, "CC BY 4.0 and others",
)  # fmt: skip


def test_notes_stand_in_the_card_as_written() -> None:
    notes = "Most patients are **pseudo-patients**.\n\n- one\n"
    card = model_card(FACTS, notes=notes)
    assert "## Notes\n\nMost patients are **pseudo-patients**.\n\n- one\n\n## Performance" in card
    assert "## Notes" not in model_card(FACTS)


def test_card_says_what_is_known_and_what_is_not(study: Study) -> None:
    bare = model_card(FACTS)
    assert "For research use only" in bare
    assert "Not stated" in bare
    assert "never reports `NO_SIGNAL`" in bare
    assert "Weights of the encoder: CC BY 4.0 and others." in bare
    full = model_card(FACTS, bags_of(study).root, study.folder)
    for words in (
        "4 AML, 4 APL",
        "24 cells",
        "0.900 | 0.600 to 0.990",
        "confounding were not run",
        "Missed APL: 1 of 4",
        "no overlap found",
        "site A: sensitivity",
        "Age: 10 to 64 years",
        "1 patient without a diagnosis",
    ):
        assert words in full, words


def test_cell_groups_stand_on_the_page_in_a_table_and_on_the_card(study: Study) -> None:
    def estimate(value: float) -> dict[str, object]:
        return {"value": value, "low": value - 0.1, "high": value + 0.05, "method": "DeLong"}

    mature = {
        "name": "mature cells", "n_by_class": {"AML": 4, "APL": 3}, "median_cells": 7.5,
        "auc": estimate(0.81), "whole": estimate(0.92), "minus_whole": estimate(-0.11),
        "minus_drawn": estimate(-0.06), "drawn": {"value": 0.87},
    }  # fmt: skip
    few = {"name": "basophils", "n_by_class": {"AML": 1, "APL": 0}, "median_cells": 5.0}
    entry = {
        "name": "mature_cells", "description": "d", "verdict": "The film tells.",
        "auc": mature["auc"], "groups": [mature, few], "minus_leukaemic": estimate(0.02),
    }  # fmt: skip
    content = {"verdict": "May come from the film.", "controls": [entry]}
    (study.folder / "controls.json").write_text(json.dumps(content))
    page = write_report(study.folder).read_text()
    for words in (
        "Each cell type alone", "Mature cells", "7.5", "0.810", "0.710 to 0.860", "0.920",
        "-0.110 (-0.210 to -0.060)", "0.870", "-0.060 (-0.160 to -0.010)", "The film tells.",
    ):  # fmt: skip
        assert words in page, words
    basophils = page[page.index("Basophils") :]
    assert basophils.index("too few patients") < basophils.index("</tr>")
    rows = read_rows(study.folder / "tables" / "cell_groups.csv")
    assert {row["group"] for row in rows} == {"Mature cells", "Basophils"}
    assert [row["measure"] for row in rows if row["group"] == "Basophils"] == ["too few patients"]
    assert [row["value"] for row in rows if row["measure"] == "ROC AUC"] == ["0.81"]
    assert rows[0]["n_APL"] == "3"
    controls = read_rows(study.folder / "tables" / "controls.csv")
    assert controls[1]["measure"].startswith("ROC AUC, mature minus leukaemic cells")
    card = model_card(FACTS, bags_of(study).root, study.folder)
    assert "May come from the film." in card
    assert "  - Mature cells: AUC 0.810\n    - Mature cells alone: AUC 0.810, 7 patients\n" in card
    assert "Basophils" not in card


@pytest.mark.parametrize("name", ["a|b", "# x\n# y", "<script>", "[l](u)", "`c`"])
def test_hostile_names_stay_text_in_a_card(name: str) -> None:
    card = model_card(replace(FACTS, name=name, classes=("normal", name), positive=name))
    assert card.count("\n# ") == 0
    assert "<script>" not in card.replace("\\<script\\>", "").replace("`<script>`", "")
    assert "NO_SIGNAL" not in card
