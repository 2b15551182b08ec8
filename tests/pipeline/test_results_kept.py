"""Results of others and of the last run: kept, refused, replaced as a whole."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from millie import demo, pipeline
from millie.bags.store import Store
from millie.config import Config
from millie.errors import BusyError, ConfigError, MissingFileError
from millie.outputs.report import rewrite_report
from millie.reproduce.command import run_experiment
from millie.reproduce.run import Task, model_of_all

UM_PX = ["segmentation.um_px=0.12"]


def content(folder: Path) -> dict[str, bytes]:
    """Every file but those of the hidden folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if ".millie" not in path.parts
    }


@pytest.fixture
def calls(bundle: Path, two_folders: list[Path], tmp_path: Path) -> Path:
    """The last run: patient ``a``."""
    out = tmp_path / "calls"
    pipeline.predict(bundle, two_folders[:1], out, settings=UM_PX)
    return out


def test_a_misspelt_input_keeps_the_calls_and_leaves_no_new_folder(
    bundle: Path, calls: Path, tmp_path: Path
) -> None:
    before = content(calls)
    for out in (calls, tmp_path / "new"):
        with pytest.raises(MissingFileError, match="does not exist"):
            pipeline.predict(bundle, tmp_path / "aa", out)
    assert content(calls) == before
    assert not (tmp_path / "new").exists()


def test_own_files_stay_and_one_in_the_way_is_refused_before_the_work(
    bundle: Path, calls: Path, two_folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"overlays/mine/photo.jpg": b"photo", "patients/notes.html": b"notes"}
    for name, data in own.items():
        (calls / name).parent.mkdir(exist_ok=True)
        (calls / name).write_bytes(data)
    pipeline.predict(bundle, two_folders[1:], calls, settings=UM_PX)
    now = content(calls)
    assert own.items() <= now.items()
    assert {n for n in now if n.startswith("patients/")} == {"patients/b.html", *list(own)[1:]}
    assert {n for n in now if n.startswith("overlays/")} == {"overlays/b/field.jpg", *list(own)[:1]}
    (calls / "patients" / "a.html").write_bytes(b"mine")
    monkeypatch.setattr(pipeline, "fill_store", lambda *_, **__: pytest.fail("cells were cut"))
    with pytest.raises(ConfigError, match=r"patients/a\.html is in the way"):
        pipeline.predict(bundle, two_folders[:1], calls, settings=UM_PX)


KILLED = """
import os, signal, sys
from millie import pipeline
def kill(what, done, total):
    if what == "overlays":
        os.kill(os.getpid(), signal.SIGKILL)
pipeline.predict(sys.argv[1], sys.argv[3:], sys.argv[2], settings=["segmentation.um_px=0.12"],
                 progress=kill)
"""


def test_killed_in_the_middle_the_calls_stay_and_the_next_run_is_clean(
    bundle: Path, calls: Path, two_folders: list[Path]
) -> None:
    before = content(calls)
    words = [sys.executable, "-c", KILLED, bundle, calls, *two_folders]
    assert subprocess.run(words, check=False).returncode == -signal.SIGKILL  # noqa: S603
    assert content(calls) == before
    finished = (calls / ".millie" / "new" / "store" / "b.h5").stat().st_ino
    pipeline.predict(bundle, two_folders, calls, settings=UM_PX)
    assert (calls / "store" / "b.h5").stat().st_ino == finished  # was not cut again
    assert {n for n in content(calls) if n.startswith("patients/")} == {
        "patients/a.html", "patients/b.html"
    }  # fmt: skip
    assert [path.name for path in (calls / ".millie").iterdir()] == ["record.json"]


HOLDER = """
import sys
from pathlib import Path
from millie.outputs.result_folder import one_at_a_time
with one_at_a_time(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_of_two_runs_at_a_time_the_second_is_refused(
    bundle: Path, two_folders: list[Path], tiny_store: Path, tiny_config: Config, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = [sys.executable, "-c", HOLDER, out]
    with subprocess.Popen(words, stdin=-1, stdout=-1, text=True) as other:  # noqa: S603
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        told = f"{out} is in use: millie .process {other.pid} on "
        with pytest.raises(BusyError, match=told):
            pipeline.predict(bundle, two_folders, out, settings=UM_PX)
        with pytest.raises(BusyError, match=told):
            pipeline.crossval(tiny_store, out, tiny_config)
        with pytest.raises(BusyError, match=told):
            rewrite_report(out)
        other.kill()
    called = pipeline.predict(bundle, two_folders, out, settings=UM_PX)
    assert [p.patient for p in called.predictions] == ["a", "b"]


def test_the_report_finishes_the_swap_of_a_killed_run(calls: Path) -> None:
    before, hidden = content(calls), calls / ".millie"
    shutil.copytree(calls, calls.with_name("copy"), ignore=shutil.ignore_patterns(".millie"))
    shutil.copy(hidden / "record.json", calls.with_name("copy"))
    (calls / "predictions.csv").write_bytes(b"of the run before")
    calls.with_name("copy").rename(hidden / "ready")
    rewrite_report(calls)
    assert content(calls) == before
    assert [path.name for path in hidden.iterdir()] == ["record.json"]


def test_a_folder_of_another_kind_is_refused_by_every_command(
    bundle: Path, calls: Path, films: Path, tiny_store: Path, tiny_config: Config, tmp_path: Path
) -> None:
    mine, image = tmp_path / "mine", next(films.parent.rglob("*.jpg"))
    mine.mkdir()
    (mine / "config.toml").write_text("mine")
    before = [content(folder) for folder in (calls, tiny_store, bundle, mine)]
    for out in (tiny_store, bundle, mine):
        with pytest.raises(ConfigError, match=rf"^{out} holds .*folder"):
            pipeline.predict(bundle, films, out)
    for out in (calls, tiny_store, bundle, mine):
        with pytest.raises(ConfigError, match=rf"^{out} holds .*folder"):
            pipeline.crossval(tiny_store, out, tiny_config)
    for out in (calls, bundle, mine):
        with pytest.raises(ConfigError, match=rf"^{out} holds .*folder"):
            pipeline.segment(films, out, tiny_config)
    for out in (calls, tiny_store, bundle):
        with pytest.raises(ConfigError, match=rf"^{out} holds .*folder"):
            pipeline.detect(image, overlay=out)
    assert [content(folder) for folder in (calls, tiny_store, bundle, mine)] == before
    with pytest.raises(ConfigError, match="whose files are replaced by the new results"):
        pipeline.predict(bundle, calls / "store", calls)


def test_the_folder_of_an_unfinished_cross_validation_is_gone_on_with(
    tiny_store: Path, tiny_config: Config, bundle: Path, films: Path, tmp_path: Path
) -> None:
    def stop(what: str, done: int, _total: int) -> None:
        if (what, done) == ("folds", 1):
            raise KeyboardInterrupt

    config = tiny_config.with_settings(["evaluation.folds=2", "training.max_epochs=1"])
    with pytest.raises(KeyboardInterrupt):
        pipeline.crossval(tiny_store, tmp_path, config, progress=stop)
    with pytest.raises(ConfigError, match="holds a cross-validation: name another folder"):
        pipeline.predict(bundle, films, tmp_path)
    assert pipeline.crossval(tiny_store, tmp_path, config).report.is_file()
    assert [path.name for path in (tmp_path / ".millie").iterdir()] == ["record.json"]
    before = content(tmp_path)
    other = config.with_settings(["evaluation.seed=5"])
    with pytest.raises(KeyboardInterrupt):
        pipeline.crossval(tiny_store, tmp_path, other, progress=stop)
    changed = {name for name, data in content(tmp_path).items() if before.get(name) != data}
    assert {name.partition("/")[0] for name in changed} == {"folds", "logs", "progress.json"}


def test_no_folder_but_a_model_of_its_own_is_removed(
    bundle: Path, calls: Path, tiny_store: Path, tiny_config: Config, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "photo.jpg").write_text("mine")
    with pytest.raises(ConfigError, match="exists; name another folder"):
        model_of_all(Store(tiny_store), tmp_path / "model", tiny_config, "tiny")
    assert (tmp_path / "model" / "photo.jpg").is_file()
    assert not demo._is_ours(bundle)
    assert not demo._is_ours(tmp_path / "model")
    for out, held in ((calls, "holds calls"), (tmp_path, "files that millie did not write")):
        with pytest.raises(ConfigError, match=held):
            run_experiment("pooling", Task(tmp_path, out, tiny_config), None, None, pipeline.silent)


def test_detect_overwrites_no_table_but_its_own(films: Path, tmp_path: Path) -> None:
    config = Config().with_settings(UM_PX)
    image, table = next(films.parent.rglob("*.jpg")), tmp_path / "cells.csv"
    table.write_text("patient,label\n")
    with pytest.raises(ConfigError, match=r"not a table of `millie detect` and is left as it is"):
        pipeline.detect(image, table, config)
    assert table.read_text() == "patient,label\n"
    table.unlink()
    for _ in range(2):
        pipeline.detect(image, table, config)
