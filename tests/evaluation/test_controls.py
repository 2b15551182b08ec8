"""Confound controls: they see what is there, and say so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from millie.config import Config
from millie.evaluation.cell_groups import MATURE, GroupFigure, GroupFindings
from millie.evaluation.controls import (
    CONTROLS,
    SHORTCUTS,
    ControlResult,
    overall,
    regress,
    run_controls,
    source_verdict,
    verdict,
)
from millie.evaluation.crossval import crossval
from millie.evaluation.sources import SourceFinding
from millie.learning.splits import make_splits
from millie.statistics.intervals import Estimate

if TYPE_CHECKING:
    from pathlib import Path

    from millie.bags.store import Store


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, low, high, "test")


HEADLINE = estimate(0.93, 0.85, 0.97)
SHORT = [
    "model.encoder=tiny", "model.pretrained=false", "prediction.runtime=torch",
    "model.hidden=[8]", "training.max_epochs=2", "training.ensemble=1",
    "evaluation.folds=2", "evaluation.bootstrap=100",
]  # fmt: skip


def test_a_number_that_gives_the_class_away_is_seen() -> None:
    rng = np.random.default_rng(0)
    labels = {f"{c}-{i}": c for c in ("A", "B") for i in range(20)}
    truth = {p: c == "B" for p, c in labels.items()}
    splits = make_splits(labels, 3, 2, 0)
    tell = {p: [rng.normal() + 4 * truth[p]] for p in labels}
    noise = {p: [rng.normal()] for p in labels}
    assert regress(tell, truth, splits, Config()).low > 0.8
    assert regress(noise, truth, splits, Config()).low < 0.5


@pytest.mark.parametrize(
    ("control", "words"),
    [
        (estimate(0.55, 0.41, 0.68), "not shown to be better than chance"),
        (estimate(0.70, 0.58, 0.80), "part of the headline"),
        (estimate(0.90, 0.80, 0.95), "can be explained without the cells"),
    ],
)
def test_verdict_in_words(control: Estimate, words: str) -> None:
    assert words in verdict("background", control, HEADLINE)


def test_shuffled_labels_above_chance_mean_a_leak() -> None:
    assert "Do not trust" in verdict("shuffled_labels", estimate(0.7, 0.6, 0.8), HEADLINE)


def test_overall_names_the_loud_ones() -> None:
    quiet = ControlResult("bag_size", estimate(0.5, 0.4, 0.6), "")
    loud = ControlResult("background", estimate(0.72, 0.6, 0.8), "")
    assert overall([quiet]) == "No control without cells is shown to be better than chance."
    assert "background (0.72)" in overall([quiet, loud])
    assert "bag size" not in overall([quiet, loud])


def test_sources_are_judged_the_other_way_round() -> None:
    def told(auc: Estimate | None, name: str = "leave_one_source_out") -> str:
        return source_verdict(name, SourceFinding(auc, "A: 3 AML"), HEADLINE)

    assert told(None) == "No AUC: A: 3 AML."
    assert "not shown to beat chance" in told(estimate(0.6, 0.4, 0.8))
    assert "part of it depends on the source" in told(estimate(0.7, 0.6, 0.8))
    assert "consistent with the headline" in told(estimate(0.9, 0.8, 0.96))
    assert "not shown that" in told(estimate(0.5, 0.4, 0.6), "source_probe")
    assert "too few patients to rule it out" in told(estimate(1, 0.48, 1), "source_probe")
    assert "the model can use whatever differs" in told(estimate(0.9, 0.8, 0.95), "source_probe")
    probed = ControlResult("source_probe", estimate(0.9, 0.8, 0.95), "")
    assert "reveal the source" in overall([probed])
    assert "Better than chance without" not in overall([probed])


def test_overall_says_whether_mature_cells_tell_the_class() -> None:
    counts = {"AML": 9, "APL": 9}
    cells = GroupFindings((GroupFigure(MATURE, counts, 9.0, estimate(0.9, 0.8, 0.95)),))
    mature = ControlResult("mature_cells", cells.auc(MATURE), "", cells)
    assert "the headline may come from the film" in overall([mature])
    assert "Better than chance without the cells" not in overall([mature])
    assert overall([ControlResult("mature_cells", None, "", GroupFindings(()))]).endswith("chance.")


def test_all_controls_run_on_a_store(toy_store: Store, tmp_path: Path) -> None:
    config = Config().with_settings(SHORT)
    main = crossval(toy_store, config, tmp_path)
    results = run_controls(toy_store, config, tmp_path, main=main)
    assert [r.name for r in results] == list(CONTROLS)
    content = json.loads((tmp_path / "controls.json").read_text())
    assert content["verdict"]
    assert all({"name", "description", "verdict"} <= entry.keys() for entry in content["controls"])
    measured = {entry["name"] for entry in content["controls"] if "auc" in entry}
    assert measured == set(SHORTCUTS)
    red_cells = next(r for r in results if r.name == "red_cells")
    assert red_cells.auc is not None
    assert red_cells.auc.value == 1
    *others, mature = results
    assert all("one source only (unknown)" in r.verdict for r in others if r.auc is None)
    groups = content["controls"][-1]["groups"]
    assert [group["name"] for group in groups] == ["mature cells", "lymphocytes"]
    assert "mature cells in too few patients (6 AML, " in mature.verdict
    assert "blasts and promyelocytes in no patient" in mature.verdict
    assert "Whether it holds at another source is not known." in content["verdict"]
    background = tmp_path / "controls" / "background"
    assert 'background = "only"' in (background / "config.toml").read_text()
    assert (background / "splits.json").read_bytes() == (tmp_path / "splits.json").read_bytes()
    shuffled = json.loads((tmp_path / "controls" / "shuffled_labels" / "metrics.json").read_text())
    assert shuffled["n_by_class"] == main.metrics["n_by_class"]


def test_red_cells_are_no_control_where_few_images_show_them(
    toy_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millie.evaluation.controls.bag_over_stated", lambda _: None)
    config = Config().with_settings(SHORT)
    main = crossval(toy_store, config, tmp_path)
    (found,) = run_controls(toy_store, config, tmp_path, main=main, names=("red_cells",))
    assert found.auc is None
    assert "No AUC: the size of red cells is not known" in found.line()
