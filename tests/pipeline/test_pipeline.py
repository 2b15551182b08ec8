"""The whole method on a drawn cohort."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from millie import pipeline
from millie.bags.store import Store
from millie.cli import commands as cli
from millie.engines.seam import ProcessEngine, SerialEngine
from millie.errors import ConfigError, ImageError, MissingFileError, NoCellsError
from millie.outputs.report import rewrite_report, write_report
from millie.types import Finding

if TYPE_CHECKING:
    from pathlib import Path

    from millie.config import Config
    from millie.engines.seam import Engine


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def calls(
    bundle: Path, films: Path, tmp_path_factory: pytest.TempPathFactory
) -> pipeline.PredictResult:
    return pipeline.predict(str(bundle), [films], tmp_path_factory.mktemp("calls"))


def test_every_engine_and_any_shards_write_the_same_store(
    films: Path, tiny_store: Path, tiny_config: Config, tmp_path: Path
) -> None:
    cohort = pipeline.read_cohort([films])
    for i in range(2):
        pipeline.segment(cohort, tmp_path / "s", tiny_config, ProcessEngine(2), (i, 2))
    expected = {p.name: p.read_bytes() for p in Store(tiny_store).bags()}
    assert {p.name: p.read_bytes() for p in Store(tmp_path / "s").bags()} == expected
    assert len(expected) == 12


def test_segment_again_skips_all(films: Path, tiny_store: Path, tiny_config: Config) -> None:
    summary = pipeline.segment(
        pipeline.read_cohort([films]), tiny_store, tiny_config, SerialEngine()
    )
    assert (summary.done, summary.skipped) == (0, 12)
    assert summary.n_cells > 50


def test_prediction_tables_have_the_promised_columns(calls: pipeline.PredictResult) -> None:
    rows = _rows(calls.out / "predictions.csv")
    assert list(rows[0]) == [
        "patient", "state", "reasons", "codes", "label", "probability_APL", "probability_normal",
        "low_APL", "low_normal", "high_APL", "high_normal", "n_cells", "model", "model_sha256",
    ]  # fmt: skip
    assert len(rows) == 12
    for row in rows:
        total = float(row["probability_APL"]) + float(row["probability_normal"])
        assert total == pytest.approx(1, abs=1e-4)
    cells = _rows(calls.out / "cells.csv")
    assert list(cells[0]) == [
        "patient", "source", "x_px", "y_px", "probability_APL", "probability_normal", "looks_like",
    ]  # fmt: skip
    assert len(cells) == sum(int(row["n_cells"]) for row in rows)
    assert json.loads((calls.out / "predictions.json").read_text(encoding="utf-8"))
    assert (calls.out / "report.html").is_file()
    assert len(list((calls.out / "overlays").rglob("*.jpg"))) >= 12


def test_a_store_predicts_like_its_images(
    bundle: Path, tiny_store: Path, calls: pipeline.PredictResult, tmp_path: Path
) -> None:
    from_store = pipeline.predict(str(bundle), [tiny_store], tmp_path)
    named = json.loads((tmp_path / "predictions.json").read_text(encoding="utf-8"))["store"]
    assert (tmp_path / named).resolve() == tiny_store.resolve()
    assert rewrite_report(tmp_path).is_file()
    assert [p.probabilities for p in from_store.predictions] == [
        p.probabilities for p in calls.predictions
    ]


def test_patients_that_the_model_was_trained_on_are_named_and_new_ones_are_not(
    bundle: Path,
    films: Path,
    calls: pipeline.PredictResult,
    two_folders: list[Path],
    tmp_path: Path,
) -> None:
    def trained(result: pipeline.PredictResult) -> set[str]:
        return {p.patient for p in result.problems if p.error == Finding.TRAINED_ON}

    assert trained(calls) == {one.patient for one in calls.predictions}
    page = next((calls.out / "patients").glob("*.html")).read_text(encoding="utf-8")
    assert "Model trained on this patient" in page
    for folder in two_folders:  # encoded again, another file: nothing is known of it
        with Image.open(folder / "field.jpg") as opened:
            opened.save(folder / "field.png")
        (folder / "field.jpg").unlink()
    assert trained(pipeline.predict(bundle, two_folders, tmp_path / "new")) == set()


def test_calls_are_the_same_bytes_whatever_order_batches_and_workers(
    bundle: Path, films: Path, tmp_path: Path
) -> None:
    """Two patients of two fields each; the second run also meets the fields in another order."""
    fields = [p.images[0].path for p in pipeline.read_cohort([films]).patients[:4]]

    def calls(name: str, order: int, engine: Engine, batch_size: int) -> list[bytes]:
        folders = [tmp_path / name / patient for patient in ("a", "b")]
        for folder, own in zip(folders, (fields[:2], fields[2:]), strict=True):
            folder.mkdir(parents=True)
            for number, field in enumerate(own[::order]):
                shutil.copy(field, folder / f"{number}.jpg")
        words = ["segmentation.um_px=0.12", f"prediction.batch_size={batch_size}"]
        out = pipeline.predict(
            str(bundle), folders[::order], tmp_path / name / "out", settings=words, engine=engine
        ).out
        rows = (out / "cells.csv").read_bytes().splitlines()
        cells = sorted(row.rpartition(b"jpg")[2] for row in rows)  # names and order of fields apart
        return [(out / "predictions.csv").read_bytes(), *cells]

    once = calls("one", 1, SerialEngine(), 32)
    assert calls("two", -1, ProcessEngine(2), 3) == once


def test_the_operating_point_is_an_option_and_is_recorded(
    bundle: Path,
    two_folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["millie", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    outs = [tmp_path / "stated", tmp_path / "specific"]
    for out, words, folder in zip(
        outs, ([], ["--operating-point", "specific"]), two_folders, strict=True
    ):
        words += ["--set", "segmentation.um_px=0.12", "--set", "prediction.batch_size=4"]
        assert command("predict", bundle, folder, "--out", out, "--engine", "serial", *words) == 0
    assert "This model tells normal and APL apart; it cannot say ALL or AML" in _words(capsys)
    cards = [json.loads((out / "predictions.json").read_bytes())["model"] for out in outs]
    assert [card["operating_point"] for card in cards] == ["sensitive", "specific"]
    assert cards[1]["settings"] == cards[0]["settings"] | {"prediction.operating_point": "specific"}
    page = next((outs[1] / "patients").glob("*.html")).read_text(encoding="utf-8")
    assert "specific" in page
    assert "This model tells normal and APL apart" in page
    assert command("verify", *outs) == 0
    assert command("report", outs[1]) == 0
    assert command("monitor", *outs, "--out", tmp_path / "monitor") == 0
    told = _words(capsys)
    for point in ("", ", prediction.operating_point=specific"):
        assert f"1.0.0 (segmentation.um_px=0.12{point}): 1 run" in told
    assert command("predict", bundle, two_folders[0], "--out", tmp_path / "no",
                   "--operating-point", "sharp") == 2  # fmt: skip
    assert "'sensitive', 'balanced' or 'specific'" in " ".join(capsys.readouterr().err.split())


def _words(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_folder_of_images_without_label_is_enough(
    bundle: Path, films: Path, tmp_path: Path
) -> None:
    folder = pipeline.read_cohort([films]).patients[0].images[0].path.parent
    result = pipeline.predict(str(bundle), [folder], tmp_path, settings=["segmentation.um_px=0.12"])
    assert [p.patient for p in result.predictions] == [folder.name]


def test_a_name_that_is_not_utf8_does_not_cost_the_run(
    bundle: Path, films: Path, tmp_path: Path
) -> None:
    image = pipeline.read_cohort([films]).patients[0].images[0].path
    odd = tmp_path / os.fsdecode(b"M\xfcller")
    odd.mkdir()
    (odd / os.fsdecode(b"Bild\xe4.png")).write_bytes(image.read_bytes())
    out = tmp_path / os.fsdecode(b"\xf6ut")
    settings = ["segmentation.um_px=0.12"]
    result = pipeline.predict(str(bundle), [odd, image.parent], out, settings=settings)
    assert {p.patient for p in result.predictions} == {odd.name, image.parent.name}
    before = (out / "predictions.json").read_bytes()
    assert odd.name in {p["patient"] for p in json.loads(before)["patients"]}
    assert "M\\udcfcller" in {row["patient"] for row in _rows(out / "predictions.csv")}
    assert "Bild\\udce4.png" in (out / "cells.csv").read_text("utf-8-sig")
    assert "M\\udcfcller" in (out / "report.html").read_text("utf-8")
    write_report(out)
    found = pipeline.detect([odd], tmp_path / "d.csv", overlay=tmp_path / "drawn")
    assert found.done == 1


def test_one_bad_patient_does_not_stop_the_others(
    bundle: Path, films: Path, tmp_path: Path
) -> None:
    good = pipeline.read_cohort([films]).patients[0].images[0].path.parent
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.jpg").write_bytes(b"no image")
    result = pipeline.predict(
        str(bundle), [bad, good], tmp_path / "out", settings=["segmentation.um_px=0.12"]
    )
    assert [p.patient for p in result.predictions] == [good.name]
    assert [p.patient for p in result.failures if p.fatal] == ["bad"]
    assert "bad" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_settings_of_the_model_cannot_be_changed_when_predicting(
    bundle: Path, films: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="'crops' settings are fixed by the model"):
        pipeline.predict(str(bundle), [films], tmp_path, settings=["crops.size_px=64"])


def test_a_store_of_other_crops_is_refused(
    bundle: Path, films: Path, tiny_config: Config, tmp_path: Path
) -> None:
    other = tiny_config.with_settings(["crops.size_px=16"])
    pipeline.segment(pipeline.read_cohort([films]), tmp_path / "s", other)
    with pytest.raises(ConfigError, match="crops of 16 px"):
        pipeline.predict(str(bundle), [tmp_path / "s"], tmp_path / "out")


@pytest.mark.parametrize("field", ["keep_smudge", "keep_unoutlined"])
def test_a_store_with_cells_that_the_model_leaves_out_is_refused(
    films: Path, tiny_config: Config, tmp_path: Path, field: str
) -> None:
    """Blank pictures of cells without an outline would count in the call."""
    wide, cohort = tmp_path / "wide", pipeline.read_cohort([films])
    pipeline.segment(cohort, wide, tiny_config.with_settings([f"crops.{field}=true"]))
    config = tiny_config.with_settings([f"crops.{field}=false"])
    with pytest.raises(ConfigError, match=f"was cut with crops.{field}=true"):
        pipeline.train(wide, tmp_path / "model", config)
    pipeline.segment(cohort, tmp_path / "store", config)
    model = pipeline.train(tmp_path / "store", tmp_path / "model", config).out
    with pytest.raises(ConfigError, match=f"crops.{field}=true"):
        pipeline.predict(str(model), [wide], tmp_path / "out")


def test_nothing_usable_is_an_error_with_the_reason(tiny_config: Config, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.jpg").write_bytes(b"no image")
    with pytest.raises(NoCellsError, match=r"no usable cells in any patient.*not a readable image"):
        pipeline.segment(pipeline.read_cohort([bad]), tmp_path / "s", tiny_config)


def test_inputs_that_are_not_there_or_do_not_go_together(films: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="does not exist"):
        pipeline.read_cohort([tmp_path / "none"])
    with pytest.raises(ConfigError, match="give it alone"):
        pipeline.read_cohort([films, tmp_path])


def test_unknown_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown data set .x.; known: .*apl_aml"):
        pipeline.prepare("x", tmp_path, tmp_path / "m.csv")


def test_detect_writes_a_row_a_cell_and_pictures(
    films: Path, tiny_config: Config, tmp_path: Path
) -> None:
    images = [p.images[0].path for p in pipeline.read_cohort([films]).patients[:3]]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"")
    config = tiny_config.with_settings(["segmentation.um_px=0.12"])
    summary = pipeline.detect(
        [*images, broken], tmp_path / "cells.csv", config, tmp_path / "pictures"
    )
    rows = _rows(tmp_path / "cells.csv")
    assert list(rows[0]) == [
        "source", "x_px", "y_px", "left_px", "top_px", "width_px", "height_px", "area_px"
    ]  # fmt: skip
    assert len(rows) == summary.n_cells >= 12
    assert {row["source"] for row in rows} == {str(p) for p in images}
    assert len(list((tmp_path / "pictures").iterdir())) == 3
    assert [p.source for p in summary.failures] == [str(broken)]


def test_detect_reads_folders_but_not_its_own_pictures(
    films: Path, tiny_config: Config, tmp_path: Path
) -> None:
    image = pipeline.read_cohort([films]).patients[0].images[0].path
    (tmp_path / "in").mkdir()
    copy = tmp_path / "in" / image.name
    shutil.copy(image, copy)
    config = tiny_config.with_settings(["segmentation.um_px=0.12"])
    found = [
        pipeline.detect([tmp_path / "in"], tmp_path / "c.csv", config, tmp_path / "in" / "drawn")
        for _ in range(2)
    ]
    assert [summary.done for summary in found] == [1, 1]
    assert {row["source"] for row in _rows(tmp_path / "c.csv")} == {str(copy)}


def test_detect_without_a_usable_image_is_an_error(tiny_config: Config, tmp_path: Path) -> None:
    with pytest.raises((ImageError, MissingFileError), match="nothing"):
        pipeline.detect([tmp_path / "nothing.jpg"], tmp_path / "c.csv", tiny_config)
    with pytest.raises(ImageError, match=r"no image .* name images or folders"):
        pipeline.detect([tmp_path], tmp_path / "c.csv", tiny_config)


def test_crossval_writes_numbers_and_a_report(
    tiny_store: Path, tiny_config: Config, tmp_path: Path
) -> None:
    summary = pipeline.crossval(tiny_store, tmp_path, tiny_config)
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["n_patients"] == 12
    assert summary.report.is_file()
    assert any("AUC" in line for line in summary.lines)
    tested = [row["patient"] for row in _rows(tmp_path / "predictions.csv")]
    assert len(tested) == len(set(tested)) == 12


UM_PX = ["segmentation.um_px=0.12"]


def test_only_patients_that_are_named_now_are_called(
    bundle: Path, two_folders: list[Path], tmp_path: Path
) -> None:
    a, b = two_folders
    out = tmp_path / "out"
    pipeline.predict(str(bundle), [a, b], out, settings=UM_PX)
    assert [
        p.patient for p in pipeline.predict(str(bundle), [a], out, settings=UM_PX).predictions
    ] == ["a"]


def test_a_patient_whose_images_broke_is_not_called_by_those_of_before(
    bundle: Path, two_folders: list[Path], tmp_path: Path
) -> None:
    a, b = two_folders
    out = tmp_path / "out"
    pipeline.predict(str(bundle), [a, b], out, settings=UM_PX)
    (b / "field.jpg").write_bytes(b"no image")
    again = pipeline.predict(str(bundle), [a, b], out, settings=UM_PX)
    assert [p.patient for p in again.predictions] == ["a"]
    assert [p.patient for p in again.failures] == ["b"]
    states = {row["patient"]: row["state"] for row in _rows(out / "predictions.csv")}
    assert states["b"] == "FAILED"


def test_a_run_without_a_usable_image_keeps_the_calls_and_says_so(
    bundle: Path, two_folders: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    pipeline.predict(str(bundle), two_folders[:1], out, settings=UM_PX)
    (two_folders[0] / "field.jpg").write_bytes(b"no image")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(NoCellsError) as caught:
        pipeline.predict(str(bundle), two_folders[:1], out, settings=UM_PX)
    assert caught.value.__notes__ == [f"{out} still holds the results of the run before"]
    assert {p: p.read_bytes() for p in before} == before


def test_a_store_remembers_who_has_no_bag_and_names_strangers(
    bundle: Path, two_folders: list[Path], tiny_config: Config, tmp_path: Path
) -> None:
    config = tiny_config.with_settings(UM_PX)
    store = tmp_path / "store"
    pipeline.segment(pipeline.read_cohort(two_folders), store, config)
    (two_folders[1] / "field.jpg").write_bytes(b"no image")
    for part in ((0, 2), (1, 2), (0, 2)):
        with suppress(NoCellsError):
            pipeline.segment(pipeline.read_cohort(two_folders), store, config, part=part)
    assert not Store(store).path_of("b").exists()
    assert [p.patient for p in Store(store).description.problems] == ["b"]
    called = pipeline.predict(str(bundle), [store], tmp_path / "calls")
    assert [p.patient for p in called.failures] == ["b"]
    summary = pipeline.segment(pipeline.read_cohort(two_folders[:1]), store, config)
    assert summary.failures == ()
    (two_folders[0] / "field.jpg").rename(tmp_path / "c.jpg")
    (two_folders[1] / "field.jpg").write_bytes((tmp_path / "c.jpg").read_bytes())
    summary = pipeline.segment(pipeline.read_cohort(two_folders[1:]), store, config)
    assert [p.source for p in summary.failures] == [Store(store).path_of("a").name]
    assert "left from another cohort" in summary.failures[0].message


def test_files_that_could_not_be_used_are_named_when_a_store_is_called(
    bundle: Path, two_folders: list[Path], tiny_config: Config, tmp_path: Path
) -> None:
    (two_folders[0] / "x.jpg").write_bytes(b"no image")
    store = tmp_path / "store"
    config = tiny_config.with_settings(UM_PX)
    pipeline.segment(pipeline.read_cohort(two_folders), store, config)
    called = pipeline.predict(str(bundle), [store], tmp_path / "calls")
    assert [(p.patient, p.source.rpartition("/")[2]) for p in called.failures] == [("a", "x.jpg")]


def test_the_same_training_again_finds_its_model(
    tiny_store: Path, tiny_config: Config, bundle: Path
) -> None:
    made = {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()}
    again = pipeline.train(tiny_store, bundle, tiny_config)
    assert again.patients == {"APL": 6, "normal": 6}
    assert {path.name: path.stat().st_mtime_ns for path in bundle.iterdir()} == made
    with pytest.raises(ConfigError, match="exists"):
        pipeline.train(tiny_store, bundle, tiny_config.with_settings(["training.seed=5"]))


def test_a_name_that_no_model_may_have_is_refused_before_training(
    tiny_store: Path, tiny_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="model name 'my model'"):
        pipeline.train(tiny_store, tmp_path / "my model", tiny_config)
    assert not list(tmp_path.iterdir())


def test_a_tab_separated_manifest_is_one(films: Path, tmp_path: Path) -> None:
    table = films.with_suffix(".tsv")
    table.write_text(films.read_text(encoding="utf-8").replace(",", "\t"), encoding="utf-8")
    assert len(pipeline.read_cohort([table]).patients) == 12
    table.unlink()
