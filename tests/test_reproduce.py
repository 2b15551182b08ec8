"""The reproduction: table, gathering, tests of cells, comparison, fusions, on drawn cells."""

from __future__ import annotations

import csv
import json
import shutil
import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from millie.bags.store import BagReader, Store
from millie.config import Config, load, profiles
from millie.errors import ConfigError, ManifestError, MissingFileError, MissingWeightsError
from millie.models.encoders import ENCODERS
from millie.outputs.study.records import read_study
from millie.readers.datasets import DATASETS
from millie.readers.published import CellAnnotation
from millie.reproduce import cell_tests, comparison, deviations, gather, pooling, robustness, run
from millie.reproduce.experiments import EXPERIMENTS, CellTest, experiment, names
from millie.reproduce.scored_cells import (
    UNMARKED,
    ExternalRun,
    ScoredCell,
    choose_images,
    match_marks,
    side_of,
)
from millie.reproduce.seen_cells import SEEN, highest_correlations
from millie.statistics.metrics import roc_auc
from millie.types import Cell, Cohort, ImageKind, ImageSource, Patient

QUICK = [
    "crops.size_px=32", "model.encoder=resnet_small", "model.pretrained=false",
    "model.hidden=[8]", "training.max_epochs=2", "evaluation.bootstrap=100",
    "prediction.runtime=torch", "training.ensemble=1", "model.aggregator=max",
    # The crops below are discs that no segmentation takes for cells: they count whole.
    "crops.keep_unoutlined=true", "model.background=keep",
]  # fmt: skip


@pytest.fixture(scope="session")
def quick() -> Config:
    return Config().with_settings(QUICK)


def draw_cell(path: Path, seed: int, *, dark: bool) -> None:
    """A crop with a nucleus; dark ones stand for promyelocytes."""
    rng = np.random.default_rng(seed)
    image = rng.integers(205, 225, (72, 72, 3), dtype=np.uint8)
    y, x = np.mgrid[:72, :72]
    inside = (x - 36) ** 2 + (y - 36) ** 2 < (18 if dark else 15) ** 2
    image[inside] = (70, 20, 110) if dark else (120, 90, 170)
    image[inside] += rng.integers(0, 20, (int(inside.sum()), 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, "JPEG", quality=95)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Miniatures of ``apl_aml`` (8 patients) and ``pbc`` (24 cells), in their own layouts."""
    root = tmp_path_factory.mktemp("data")
    lines = ["Patient_ID,Diagnosis,Cohort,Age at Diagnosis,Gender"]
    for i in range(8):
        label = "APL" if i % 2 else "AML"
        patient = root / "apl_aml" / "All" / f"Patient_{i:02d}" / "Signed slides"
        for j in range(6):
            dark = label == "APL" and j < 3
            kind = "Promyelocyte" if dark else "Lymphocyte"
            draw_cell(patient / kind / f"{i}_{j}.jpg", 100 * i + j, dark=dark)
        lines.append(f"Patient_{i:02d},{label},Discovery,{20 + 10 * i},{'MF'[i // 4]}")
    (root / "apl_aml" / "master.csv").write_text("\n".join(lines) + "\n")
    for j in range(24):
        folder, prefix = ("ig", "PMY") if j % 2 else ("lymphocyte", "LY")
        draw_cell(root / "pbc_cells" / folder / f"{prefix}_{j:03d}.jpg", 9000 + j, dark=j % 2 == 1)
    return root


@pytest.fixture(scope="session")
def reproduced(
    data: Path, quick: Config, tmp_path_factory: pytest.TempPathFactory
) -> run.Reproduction:
    task = run.Task(
        data,
        tmp_path_factory.mktemp("out"),
        run.settings("apl-aml", quick, folds=2),
        controls=False,
        robustness=True,
    )
    return run.reproduce("apl-aml", task)


def test_table_names_only_what_exists() -> None:
    assert names() == ("all-aml-normal", "apl-blood", "apl-aml", "marrow", "pooling")
    for known in EXPERIMENTS.values():
        classes = {label for part in known.parts for label in part.labels.values()}
        assert known.positive in classes
        tests = {test.name for test in known.cell_tests}
        assert len(tests) == len(known.cell_tests)
        for part in known.parts:
            assert part.dataset in DATASETS
            assert set(part.counts) == set(part.labels.values())
        for test in known.cell_tests:
            assert set(test.datasets) <= set(DATASETS)
            assert test.score in classes
        for printed in known.printed:
            kind, _, name = printed.measure.partition(":")
            assert name in tests if kind == "cells" else name == ""
    with pytest.raises(ConfigError, match="known: all-aml-normal"):
        experiment("fig2")


def test_every_profile_is_whole_and_told() -> None:
    assert set(profiles()) == set(deviations.DEVIATIONS)
    assert {"acute-leukaemia", "default", "paper", "released-code", "whole-crop"} == set(profiles())
    folder = resources.files("millie") / "profiles"
    for name in ("paper", "released-code"):
        text = (folder / f"{name}.toml").read_text(encoding="utf-8")
        load(profile=name)
        stated = sum(len(fields) for fields in tomllib.loads(text).values())
        assert stated >= 10
        for line in text.splitlines():
            if "=" in line and not line.startswith("#"):
                assert "#" in line, line
    released, paper = load(profile="released-code"), load(profile="paper")
    assert (released.model.aggregator, paper.model.aggregator) == ("mean", "max")
    assert released.training.cells_per_step == 200
    assert released.segmentation.method == "released-code"


def test_encoder_without_weights_is_replaced_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch() -> Path:
        raise MissingWeightsError("weights of vgg19: no network. Either install")

    monkeypatch.setitem(ENCODERS, "vgg19", replace(ENCODERS["vgg19"], fetch=fetch))
    config, told = deviations.with_weights(load(profile="paper"))
    assert config.model.encoder == "efficientnet_lite0"
    assert "efficientnet_lite0 in place of vgg19" in told[0]
    assert "no network" in told[0]
    own = load(profile="paper").with_settings(["model.weights=somewhere.safetensors"])
    assert deviations.with_weights(own) == (own, ())


def test_data_are_found_below_and_above(data: Path) -> None:
    found = gather.gather(experiment("apl-aml"), data)
    assert found.counts() == {"AML": 4, "APL": 4}
    assert found.roots == {"apl_aml": data / "apl_aml"}
    assert all(p.site for p in found.cohort.patients)
    assert gather.gather(experiment("apl-aml"), data / "apl_aml").counts() == found.counts()
    assert gather.find(DATASETS["pbc"], data) == data / "pbc_cells"
    assert "4 APL (33 in the paper)" in gather.shortfalls(experiment("apl-aml"), found)[0]


def test_missing_data_say_what_to_get(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"no data set found.*\n.*imagebank"):
        gather.gather(experiment("apl-blood"), data)
    with pytest.raises(MissingFileError, match=r"Content of .*: apl_aml/, pbc_cells/"):
        gather.gather(experiment("marrow"), data)
    with pytest.raises(MissingFileError, match="is not a folder"):
        gather.gather(experiment("apl-blood"), data / "nowhere")
    (tmp_path / "apl_aml" / "Deep").mkdir(parents=True)
    absent = gather.find(DATASETS["apl_aml"], tmp_path)
    assert isinstance(absent, gather.Missing)
    assert "expected:" in absent.message
    assert "Deep/" in absent.message


def test_a_part_of_the_data_is_enough_where_two_classes_remain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "all_idb1" / "im").mkdir(parents=True)
    patients = tuple(
        Patient(f"Im{i}", label, (ImageSource(tmp_path / f"{i}.jpg", f"{i}.jpg"),))
        for i, label in enumerate(("ALL", "normal", "ALL", "normal"))
    )
    entry = replace(DATASETS["all_idb1"], prepare=lambda _: Cohort("all_idb1", patients))
    monkeypatch.setitem(DATASETS, "all_idb1", entry)
    known = experiment("all-aml-normal")
    found = gather.gather(known, tmp_path)
    assert found.cohort.labels == ("ALL", "normal")
    assert found.cohort.patients[0].id == "all_idb1-Im0"
    assert [m.dataset for m in found.missing] == ["ash"]
    assert any("without ash" in text for text in gather.shortfalls(known, found))


def test_a_set_that_lies_deeper_is_to_be_moved(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "apl_aml", tmp_path / "apl_aml" / "unzipped" / "DeepAPL")
    absent = gather.find(DATASETS["apl_aml"], tmp_path)
    assert isinstance(absent, gather.Missing)
    assert f"too high: put this folder, named apl_aml, into {tmp_path}: " in absent.message
    assert "--root" not in absent.message


def test_only_experiments_with_several_sources_transfer_colours(tmp_path: Path) -> None:
    config = run.settings("all-aml-normal", Config())
    assert config.training.colour_transfer
    assert not run.settings("apl-aml", Config()).training.colour_transfer
    store = Store(tmp_path)
    known = experiment("all-aml-normal")
    assert run.of_colours(experiment("apl-aml"), store, config) == ()
    assert "no colour transfer" in run.of_colours(known, store, Config())[0]
    assert "there is only one source" in run.of_colours(known, store, config)[0]


def test_settings_that_are_not_the_profiles_are_told() -> None:
    config = load(profile="paper")
    assert deviations.of_profile("paper", config) == deviations.DEVIATIONS["paper"]
    own = config.with_settings(["training.mode=frozen", "evaluation.repeats=10"])
    told = deviations.of_profile("paper", own)
    assert told[-1] == "training.mode = frozen (end_to_end in the profile)"
    assert len(told) == 1 + len(deviations.DEVIATIONS["paper"])
    other = config.with_settings(["model.encoder=vgg16"])
    assert deviations.of_profile("paper", other)[-1] == (
        "model.encoder = vgg16 (vgg19 in the profile)"
    )
    assert deviations.of_profile("mine", own) == ("profile mine: see its settings",)


def test_a_cell_cut_twice_is_found_again() -> None:
    rng = np.random.default_rng(0)
    film = np.asarray(Image.fromarray(rng.integers(0, 255, (9, 9), np.uint8)).resize((60, 60)))
    known = np.stack([film[i : i + 24, 5:29] for i in (0, 20)]).astype(np.float32)
    shifted = film[22:46, 3:27].astype(np.float32) * 0.8 + 10
    other = rng.permutation(film.ravel()).reshape(60, 60)[:24, :24].astype(np.float32)
    flat = np.full((24, 24), 7, np.float32)
    found = highest_correlations(np.stack([shifted, other, flat]), known)
    assert found[0] > SEEN
    assert found[1] < 0.6
    assert found[2] == 0
    assert highest_correlations(known[:0], known).shape == (0,)
    assert highest_correlations(known, known[:0]).tolist() == [0, 0]


def test_cells_seen_in_training_get_a_row_without_them(
    data: Path, quick: Config, reproduced: run.Reproduction, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = experiment("apl-aml")
    bundle = run.load_bundle(reproduced.out / "model")
    cohorts, _ = cell_tests.external_cohorts(known, data)
    own = Store(reproduced.out / "store")
    external = ExternalRun(bundle, own, reproduced.out / "cells" / "store", quick)
    monkeypatch.setattr(cell_tests, "seen_cells", lambda *_: set())
    plain, _ = cell_tests.run_external(known, cohorts, external)
    assert [r.test.name for r in plain] == ["healthy_promyelocyte"]

    def two_seen(_: Store, bags: Store, patients: set[str]) -> set[tuple[str, str]]:
        pool = min(patients)
        with BagReader(bags.path_of(pool)) as bag:
            return {(pool, source.name) for source in bag.sources[:2]}

    monkeypatch.setattr(cell_tests, "seen_cells", two_seen)
    found, _ = cell_tests.run_external(known, cohorts, external)
    assert [r.test.name for r in found] == ["healthy_promyelocyte", "healthy_promyelocyte_unseen"]
    assert "2 of its cells also occur" in " ".join(found[0].caveats)
    total = plain[0].n_target + plain[0].n_other
    assert found[1].n_target + found[1].n_other == total - 2


TEST = CellTest("t", "t", "external", ("a",), "APL", ("promyelocyte",), most=(3, 5))


def test_sides_of_a_test() -> None:
    assert side_of(TEST, "promyelocyte") == 0
    assert side_of(TEST, "lymphocyte") == 1
    assert side_of(TEST, UNMARKED) == 1
    assert side_of(TEST, "platelet") is None
    assert side_of(TEST, "") is None
    assert side_of(replace(TEST, others=("monocyte",)), "lymphocyte") is None


def test_drawn_cells_are_the_same_each_time_and_not_too_many() -> None:
    images = tuple(
        ImageSource(Path(f"{i}.jpg"), f"{i}.jpg", ImageKind.CELL,
                    cell_label="promyelocyte" if i % 3 else "lymphocyte")
        for i in range(40)
    )  # fmt: skip
    cohorts = {"a": Cohort("a", (Patient("pool", "normal", images),))}
    chosen = choose_images([TEST], cohorts)["t"]
    assert chosen == choose_images([TEST], cohorts)["t"]
    kinds = [int(name.removesuffix(".jpg")) % 3 > 0 for _, name in chosen]
    assert (sum(kinds), len(kinds)) == (3, 8)


def cell_at(x: float, y: float, size: int = 20) -> Cell:
    return Cell(0, x, y, int(x - size / 2), int(y - size / 2), size, size, 100.0)


def test_a_mark_goes_to_the_nearest_cell_that_holds_it() -> None:
    cells = {0: cell_at(50, 50), 1: cell_at(62, 50), 2: cell_at(200, 200)}
    point = CellAnnotation(58, 50, "blast")
    box = CellAnnotation(205, 205, "promyelocyte", (190, 190, 30, 30))
    far = CellAnnotation(400, 400, "blast")
    assert match_marks(cells, [point, box, far]) == {1: "blast", 2: "promyelocyte"}


def test_judged_cells_have_auc_and_interval_or_a_reason() -> None:
    rng = np.random.default_rng(0)
    cells = [
        ScoredCell(f"p{i % 6}", "", "promyelocyte" if i % 2 else "lymphocyte",
                   {"APL": float(rng.normal(i % 2, 0.8))}, "APL")
        for i in range(120)
    ]  # fmt: skip
    config = Config().evaluation.model_copy(update={"bootstrap": 100})
    truth = np.array([c.label == "promyelocyte" for c in cells])
    expected = roc_auc(truth, np.array([c.probabilities["APL"] for c in cells]))
    for where, method in (("external", "DeLong"), ("own", "bootstrap")):
        found = cell_tests.judge(replace(TEST, where=where), cells, 0.5, config, ())
        assert found.auc is not None
        assert found.auc.value == pytest.approx(expected)
        assert found.auc.low < expected < found.auc.high
        assert method in found.auc.method
        assert sum(map(sum, found.confusion or ())) == 120
    few = cell_tests.judge(TEST, cells[:8], 0.5, config, ())
    assert "at least 10" in few.why
    other = cell_tests.judge(replace(TEST, score="ALL"), cells, 0.5, config, ())
    assert "no patients with ALL" in other.why


def test_reproduction_leaves_table_page_and_panels(reproduced: run.Reproduction) -> None:
    out = reproduced.out
    with (out / "comparison.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["paper"] for row in rows][:2] == ["0.96 +- 0.02", "0.94"]
    for row in rows[:2]:
        assert float(row["low"]) <= float(row["here"]) <= float(row["high"])
        assert "4 APL" in row["n"]
        assert "33 in the paper" in row["protocol_differences"]
    panels = {path.name for path in (out / "figure").iterdir()}
    assert {
        "a_roc.svg",
        "a_roc.pdf",
        "b_confusion.svg",
        "e_pca.svg",
        "g_flagged_cells.jpg",
    } <= panels
    page = (out / "report.html").read_text()
    assert "Fig. 4" in page
    assert "For research use only" in page
    assert len(reproduced.lines()) == len(rows)
    assert all(name in page for name in ("study/report.html", "Protocol differences, all rows"))


def test_healthy_cells_are_scored_by_a_model_of_all_patients(reproduced: run.Reproduction) -> None:
    row = next(r for r in reproduced.rows if "healthy donors" in r.quantity)
    assert row.here is not None
    assert "12 cells against 12" in row.n
    assert any("not of APL" in text for text in row.differences)
    assert (reproduced.out / "model" / "bundle.json").is_file()
    own = next(r for r in reproduced.rows if "of the test patients" in r.quantity)
    assert "12 cells against 36" in own.n


def test_running_again_resumes(reproduced: run.Reproduction, data: Path, quick: Config) -> None:
    bundle = reproduced.out / "model" / "bundle.json"
    before = bundle.stat().st_mtime_ns, (reproduced.out / "comparison.csv").read_bytes()
    steps: list[str] = []
    task = run.Task(data, reproduced.out, run.settings("apl-aml", quick, folds=2), controls=False)
    run.reproduce("apl-aml", task, lambda what, *_: steps.append(what))
    assert before == (bundle.stat().st_mtime_ns, (reproduced.out / "comparison.csv").read_bytes())
    assert "network-0" not in steps


def test_robustness_curves_begin_at_the_unchanged_value(reproduced: run.Reproduction) -> None:
    study = reproduced.out / "study"
    curves = {c["name"]: c for c in json.loads((study / "robustness.json").read_text())["curves"]}
    assert set(curves) == {change.name for change in robustness.CHANGES}
    plain = {"Blur": 0, "JPEG quality": 100, "Hue": 0, "Scale": 1}
    values = [
        next(p["value"] for p in curves[name]["points"] if p["x"] == x) for name, x in plain.items()
    ]
    assert len(set(values)) == 1
    assert "Robustness" in (study / "report.html").read_text()
    assert (study / "tables" / "robustness.csv").is_file()


def test_bag_sizes_count_only_patients_with_enough_cells(
    reproduced: run.Reproduction, quick: Config, tmp_path: Path
) -> None:
    config = run.settings("apl-aml", quick, folds=2)
    (tmp_path / "splits.json").write_bytes((reproduced.out / "study" / "splits.json").read_bytes())
    store = Store(reproduced.out / "store")
    path = robustness.measure_robustness(store, config, tmp_path, changes=(), bag_sizes=(2, 6, 7))
    curves = json.loads(path.read_text())["curves"]
    assert [c["measure"] for c in curves] == ["false-positive rate", "sensitivity"]
    for curve in curves:
        assert [(p["x"], p["n"]) for p in curve["points"]] == [(2, 4), (6, 4)]


@pytest.mark.parametrize("change", robustness.CHANGES, ids=lambda change: change.name)
def test_changes_keep_shape_and_grow(change: robustness.Change) -> None:
    rng = np.random.default_rng(2)
    image = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(image).resize((40, 40)).resize((40, 40)))
    gaps = []
    for strength in change.strengths:
        changed = change.apply(image, strength)
        assert (changed.shape, changed.dtype) == (image.shape, np.uint8)
        gaps.append(float(np.abs(changed.astype(int) - image.astype(int)).mean()))
    assert gaps[0] == 0
    assert min(gaps[1:]) > 0


def test_model_is_made_again_when_its_settings_change(
    reproduced: run.Reproduction, quick: Config
) -> None:
    store = Store(reproduced.out / "store")
    config = run.settings("apl-aml", quick, folds=2)
    folder = reproduced.out / "again"
    first = run.model_of_all(store, folder, config, "m")
    assert run.model_of_all(store, folder, config, "m").sha256 == first.sha256
    changed = config.with_settings(["training.seed=5"])
    assert run.model_of_all(store, folder, changed, "m").sha256 != first.sha256


def test_comparison_names_shared_and_own_differences(reproduced: run.Reproduction) -> None:
    study = read_study(reproduced.out / "study")
    rows = comparison.compare(experiment("apl-aml"), study.metrics, [], ["a gap"])
    assert rows[0].here == study.metrics["headline"]["auc_folds"]["value"]
    assert all("a gap" in row.differences for row in rows)
    without = {**study.metrics, "headline": {}}
    row = comparison.compare(experiment("apl-aml"), without, [], [])[0]
    assert (row.here, row.method) == (None, "not measured")


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_and_keeps_the_order(p: dict[str, float]) -> None:
    adjusted = pooling.holm(p)
    assert all(p[name] <= adjusted[name] <= 1 for name in p)
    ordered = sorted(p, key=lambda n: (p[n], n))
    assert [adjusted[n] for n in ordered] == sorted(adjusted[n] for n in ordered)
    assert adjusted[ordered[0]] == pytest.approx(min(1, len(p) * p[ordered[0]]))


def test_difference_is_paired_and_wider_than_the_naive_one() -> None:
    rng = np.random.default_rng(1)
    base = {(r, f): float(rng.normal(0.8, 0.1)) for r in range(4) for f in range(3)}
    better = {key: value + 0.05 + float(rng.normal(0, 0.01)) for key, value in base.items()}
    found = pooling.difference(better, base, 0.5)
    gaps = np.array([better[k] - base[k] for k in base])
    naive = gaps.std(ddof=1) / np.sqrt(len(gaps))
    assert found.value == pytest.approx(gaps.mean())
    assert (found.high - found.low) / 2 > 2 * naive
    assert found.p < 0.01
    same = pooling.difference(base, base, 0.5)
    assert (same.value, same.p) == (0, 1)
    swapped = pooling.difference(base, better, 0.5)
    assert (swapped.value, swapped.p) == pytest.approx((-found.value, found.p))


def test_pooling_gives_every_fusion_the_same_folds(
    data: Path, quick: Config, tmp_path: Path
) -> None:
    task = run.Task(data, tmp_path, quick, controls=False)
    result = pooling.compare_pooling(task, folds=2, repeats=1, aggregators=("mean",))
    assert [(row.experiment, row.aggregator) for row in result.rows] == [
        ("apl-aml", "max"), ("apl-aml", "mean"),
    ]  # fmt: skip
    splits = [
        (tmp_path / "apl-aml" / name / "splits.json").read_bytes() for name in ("max", "mean")
    ]
    assert splits[0] == splits[1]
    reference, other = result.rows
    assert reference.difference is None
    assert other.difference is not None
    gap = other.auc_folds[0] - reference.auc_folds[0]
    assert other.difference.value == pytest.approx(gap)
    assert len(result.missing) == 3
    page = (tmp_path / "report.html").read_text()
    assert "Supplementary Fig. 1" in page
    with (tmp_path / "pooling.csv").open(encoding="utf-8-sig", newline="") as stream:
        assert [row["aggregator"] for row in csv.DictReader(stream)] == ["max", "mean"]


def test_pooling_without_any_data_says_so(quick: Config, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="no experiment can be run"):
        pooling.compare_pooling(run.Task(tmp_path, tmp_path / "out", quick))


def test_settings_take_the_folds_of_the_paper_unless_told(quick: Config) -> None:
    assert run.settings("marrow", quick).evaluation.folds == 4
    told = run.settings("marrow", quick, folds=2, repeats=3).evaluation
    assert (told.folds, told.repeats, told.positive) == (2, 3, "APL")


def test_a_manifest_of_another_set_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="is not the set apl_aml"):
        DATASETS["apl_aml"].prepare(tmp_path)
