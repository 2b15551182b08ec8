"""Groups of cells alone: the disease's cells and the film are told apart, labels never train."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from millie.config import Config
from millie.evaluation.cell_groups import (
    FEWEST_CELLS,
    GROUPS,
    LEUKAEMIC,
    MATURE,
    GroupFigure,
    GroupFindings,
    GroupScore,
    conclusion,
    find_groups,
    group_verdict,
    parts_to_score,
)
from millie.evaluation.folds import FoldResult, PatientScore, Study, finish_fold, fold_digest
from millie.evaluation.folds import read_fold as read
from millie.learning.ensemble import Material
from millie.learning.sampling import EmbeddedCells
from millie.learning.splits import make_splits
from millie.readers.apl_aml import CELL_TYPES
from millie.statistics.intervals import Estimate, delong_interval
from millie.types import Cell

DIM = 6
TYPES = ("segmented neutrophil", "lymphocyte", "blast", "promyelocyte")


def estimate(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, low, high, "test")


@pytest.mark.parametrize(
    ("label", "groups"),
    [
        ("band neutrophil", {MATURE, "neutrophils"}),
        ("Segmented Neutrophils", {MATURE, "neutrophils"}),
        ("variant lymphocyte", {MATURE, "lymphocytes"}),
        ("promyelocyte", {LEUKAEMIC}),
        ("lymphoblast", {LEUKAEMIC}),
        ("promonocyte", {LEUKAEMIC}),
        ("erythroblast", {"erythroblasts"}),
        ("metamyelocyte", {"myelocytes and metamyelocytes"}),
        ("no blast", set()),
        ("prolymphocyte", set()),
        ("", set()),
    ],
)
def test_a_type_belongs_to_its_groups(label: str, groups: set[str]) -> None:
    assert parts_to_score("p", [label] * FEWEST_CELLS).keys() == groups
    assert not parts_to_score("p", [label] * (FEWEST_CELLS - 1))


def test_leukaemic_and_mature_types_are_disjoint_and_known_to_the_readers() -> None:
    assert not set(GROUPS[MATURE]) & set(GROUPS[LEUKAEMIC])
    grouped = {name for types in GROUPS.values() for name in types}
    rest = {
        "artefact", "giant thrombocyte", "plasma cell", "prolymphocyte", "thrombocyte aggregation",
        "unidentified",
    }  # fmt: skip
    assert set(CELL_TYPES.values()) - grouped == rest


def test_random_parts_are_as_large_and_the_same_in_every_repeat() -> None:
    labels = ["lymphocyte"] * 7 + [None] * 20 + ["blast"] * 5
    parts = parts_to_score("p", labels)
    own, *draws = parts["lymphocytes"]
    assert own.tolist() == list(range(7))
    assert len(draws) > 1
    for drawn in draws:
        assert len(np.unique(drawn)) == 7
        assert 0 <= drawn.min() <= drawn.max() < len(labels)
        assert (np.diff(drawn) > 0).all()
    assert len({tuple(d.tolist()) for d in draws}) == len(draws)
    again = parts_to_score("p", labels)
    assert all((a == b).all() for a, b in zip(parts[LEUKAEMIC], again[LEUKAEMIC], strict=True))
    other = parts_to_score("q", labels)["lymphocytes"]
    assert any((a != b).any() for a, b in zip(draws, other[1:], strict=True))


def make_study(
    config: Config,
    labels: dict[str, str],
    plant: Callable[[str, np.ndarray], np.ndarray],
    types: Sequence[str] = TYPES,
) -> Study:
    """Six cells of each type a patient; ``plant`` says which of them show the diagnosis."""
    rng = np.random.default_rng(0)
    features, cells = {}, {}
    own = np.repeat(types, 6)
    for patient, label in labels.items():
        vectors = rng.normal(size=(len(own), DIM))
        vectors[:, 3] += 4 * plant(label, own)
        features[patient] = vectors.astype(np.float32)
        cells[patient] = [Cell(0, 0.0, 0.0, 0, 0, 8, 8, 64.0, label=t or None) for t in own]
    classes = tuple(sorted(set(labels.values())))
    return Study(Material(EmbeddedCells(features), DIM), classes, "APL", labels, cells, config)


def cross_validate(study: Study, out: Path, repeats: int = 1) -> list[FoldResult]:
    splits = make_splits(study.labels, 2, repeats, 0)
    return [finish_fold(study, fold, out) for fold in splits.assignments]


def found_by(results: Sequence[FoldResult], study: Study) -> GroupFindings:
    return find_groups(results, study.classes, study.positive, 0.95)


HIGH, MIDDLE, CHANCE = estimate(0.95, 0.9, 1), estimate(0.75, 0.4, 0.9), estimate(0.5, 0.3, 0.7)
BINARY = {f"{c}-{i:02d}": c for c in ("AML", "APL") for i in range(14)}


def in_leukaemic(label: str, types: np.ndarray) -> np.ndarray:
    return (label == "APL") * np.isin(types, GROUPS[LEUKAEMIC])


def on_the_film(label: str, types: np.ndarray) -> np.ndarray:
    return (label == "APL") * np.ones(len(types))


def test_a_disease_in_its_cells_is_told_by_them_alone(quick: Config, tmp_path: Path) -> None:
    study = make_study(quick, BINARY, in_leukaemic)
    found = found_by(cross_validate(study, tmp_path), study)
    mature, leukaemic = found.named(MATURE), found.named(LEUKAEMIC)
    assert mature is not None
    assert leukaemic is not None
    assert leukaemic.auc is not None
    assert leukaemic.auc.value > 0.9
    assert leukaemic.auc.low > 0.5
    assert mature.auc is not None
    assert mature.auc.low < 0.5
    assert mature.whole == leukaemic.whole
    assert mature.whole is not None
    assert mature.whole.value > 0.9
    assert mature.minus_whole is not None
    assert mature.minus_whole.high < 0
    assert mature.minus_drawn is not None
    assert mature.minus_drawn.high < 0, "as many random cells hold leukaemic ones"
    assert (mature.median_cells, leukaemic.median_cells) == (12, 12)
    assert mature.n_by_class == {"AML": 14, "APL": 14}
    assert found.n_both == 28
    assert found.difference is not None
    assert found.difference.high < 0
    assert "evidence that the headline comes from the leukaemic cells" in group_verdict(found)
    assert "ingle mature type" not in group_verdict(found)


def test_a_film_that_tells_the_class_is_told_by_every_cell(quick: Config, tmp_path: Path) -> None:
    study = make_study(quick, BINARY, on_the_film)
    found = found_by(cross_validate(study, tmp_path), study)
    assert {group.name for group in found.groups} == {
        MATURE, LEUKAEMIC, "neutrophils", "lymphocytes",
    }  # fmt: skip
    assert all(group.auc is not None and group.auc.low > 0.7 for group in found.groups)
    told = group_verdict(found)
    assert "Mature cells alone tell the class as well as the leukaemic ones" in told
    assert "the headline may come from the film" in told
    assert "types that are better than chance: neutrophils (" in told
    assert "; 28 patients)" in told
    mixed = replace(found, groups=(found.groups[0], replace(found.groups[2], auc=CHANCE)))
    assert group_verdict(mixed).endswith(
        "No single mature type is shown to tell it, but their mixture may."
    )


def test_three_classes_are_the_positive_one_against_the_rest(quick: Config, tmp_path: Path) -> None:
    labels = {f"{c}-{i:02d}": c for c in ("ALL", "AML", "APL") for i in range(8)}
    study = make_study(quick, labels, in_leukaemic)
    found = found_by(cross_validate(study, tmp_path), study)
    leukaemic = found.named(LEUKAEMIC)
    assert leukaemic is not None
    assert leukaemic.n_by_class == {"ALL": 8, "AML": 8, "APL": 8}
    assert leukaemic.n == 24
    assert leukaemic.auc is not None
    assert leukaemic.auc.value > 0.9


def test_the_parts_are_those_of_the_saved_fold(quick: Config, tmp_path: Path) -> None:
    study = make_study(quick, BINARY, in_leukaemic)
    first = cross_validate(study, tmp_path, repeats=2)
    fold = make_splits(study.labels, 2, 2, 0).assignments[0]
    known = read(tmp_path / "folds", fold.name, fold_digest(study, fold))
    assert known is not None
    assert known.patients == first[0].patients
    assert all(score.groups[MATURE].n_cells == 12 for score in known.patients.values())
    found = found_by(first, study)
    mature = found.named(MATURE)
    assert mature is not None
    assert mature.n == len(BINARY), "two repeats are no more patients"
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["groups"]


def test_no_cell_label_reaches_training(quick: Config, tmp_path: Path) -> None:
    """Other labels: the same networks; and those of a training part do not even count."""
    study = make_study(quick, BINARY, in_leukaemic)
    fold = make_splits(study.labels, 2, 1, 0).assignments[0]
    training = (*fold.train, *fold.validation)

    def relabelled(patients: Sequence[str]) -> Study:
        changed = {p: [replace(c, label="monocyte") for c in study.cells[p]] for p in patients}
        return replace(study, cells={**study.cells, **changed})

    assert fold_digest(relabelled(training), fold) == fold_digest(study, fold)
    assert fold_digest(relabelled(fold.test), fold) != fold_digest(study, fold)
    before = finish_fold(study, fold, tmp_path / "a")
    after = finish_fold(relabelled([*training, *fold.test]), fold, tmp_path / "b")
    assert (before.threshold, before.best_epochs) == (after.threshold, after.best_epochs)
    for patient, score in before.patients.items():
        assert after.patients[patient].probabilities == score.probabilities
        assert after.patients[patient].groups.keys() == {MATURE, "monocytes"}


def test_without_labels_nothing_is_measured(quick: Config, tmp_path: Path) -> None:
    study = make_study(quick, BINARY, in_leukaemic, types=("",))
    found = found_by(cross_validate(study, tmp_path), study)
    assert found == GroupFindings(())
    assert group_verdict(found).startswith("No AUC: no patient has 5 cells with")
    assert conclusion(found) == ""


def scores(counts: dict[str, int], name: str) -> FoldResult:
    """A fold whose patients have cells of one group, scored at random."""
    rng = np.random.default_rng(1)
    patients = {}
    for label, n in counts.items():
        for i in range(n):
            p = [(float(x), 1 - float(x)) for x in rng.random(4)]
            group = GroupScore(5 + i, p[1], (p[2], p[3]))
            patients[f"{label}-{i}"] = PatientScore(label, p[0], 30, groups={name: group})
    return FoldResult(0, 0, 0.5, 1.0, (1,), ((),), patients)


def test_a_group_of_too_few_patients_is_listed_without_a_figure() -> None:
    found = find_groups([scores({"AML": 9, "APL": 2}, MATURE)], ("AML", "APL"), "APL", 0.95)
    assert found.groups == (GroupFigure(MATURE, {"AML": 9, "APL": 2}, 8.0),)
    told = group_verdict(found)
    assert "mature cells in too few patients (9 AML, 2 APL; 5 cells needed)" in told
    assert "blasts and promyelocytes in no patient (5 cells needed)" in told
    assert told.endswith("Cannot be measured.")


def test_figures_are_those_of_the_patients_that_have_the_group() -> None:
    one = scores({"AML": 9, "APL": 6}, "monocytes")
    others = scores({"AML": 20, "APL": 20}, MATURE)
    rest = {f"x{p}": s for p, s in others.patients.items()}
    found = find_groups([one, replace(others, fold=1, patients=rest)], ("AML", "APL"), "APL", 0.95)
    group = found.named("monocytes")
    assert group is not None
    truth = np.array([s.label == "APL" for s in one.patients.values()])
    own = [s.groups["monocytes"] for s in one.patients.values()]
    expected = delong_interval(truth, np.array([g.probabilities[1] for g in own]))
    assert group.auc == expected
    assert group.whole == delong_interval(
        truth, np.array([s.probabilities[1] for s in one.patients.values()])
    )
    drawn = [delong_interval(truth, np.array([g.drawn[d][1] for g in own])).value for d in range(2)]
    assert group.drawn == pytest.approx(np.mean(drawn))
    assert group.minus_drawn is not None
    assert group.minus_drawn.value == pytest.approx(expected.value - np.mean(drawn))


def findings(
    mature: Estimate | None, leukaemic: Estimate | None, difference: Estimate | None
) -> GroupFindings:
    counts = {"AML": 20, "APL": 20}
    groups = (
        GroupFigure(MATURE, counts, 20.0, mature),
        GroupFigure(LEUKAEMIC, counts, 20.0, leukaemic),
    )
    pair = None if difference is None else (0.9, 0.8)
    return GroupFindings(groups, 40, pair, difference)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (findings(HIGH, HIGH, estimate(0, -0.1, 0.1)), "as well as the leukaemic ones: the"),
        (findings(HIGH, HIGH, estimate(0.1, 0.01, 0.2)), "better than the leukaemic ones: the"),
        (findings(HIGH, HIGH, estimate(-0.1, -0.2, -0.01)), "part of the headline may come from"),
        (findings(HIGH, None, None), "cannot be compared"),
        (findings(CHANCE, HIGH, estimate(-0.4, -0.6, -0.2)), "evidence that the headline comes"),
        (findings(MIDDLE, HIGH, estimate(-0.2, -0.4, 0.1)), "too few patients to rule it out"),
        (findings(CHANCE, CHANCE, estimate(0, -0.2, 0.2)), "are not shown to tell the class."),
    ],
)
def test_verdict_in_words(found: GroupFindings, words: str) -> None:
    assert words in conclusion(found)
    assert conclusion(found) in group_verdict(found)
