"""The command line: words, messages, exit codes."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
import typer
from PIL import Image

from millie import __version__
from millie.cli import commands as cli
from millie.cli.doctor import installed
from millie.cli.exits import explained, finish
from millie.config import profiles
from millie.errors import ConfigError
from millie.types import Problem

if TYPE_CHECKING:
    from pathlib import Path


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["millie", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    "command",
    ["demo", "prepare", "detect", "segment", "train", "crossval", "predict", "report", "models",
     "doctor", "verify", "monitor", "validate", "export", "import-features",
     "serve", "tokens", "users", "audit", "backup", "restore"],
)  # fmt: skip
def test_every_command_explains_itself(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, command, "--help") == 0
    assert "Usage" in capsys.readouterr().out


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys, millie.cli.commands; sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


def test_an_error_is_one_message_and_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "segment", str(tmp_path / "no.csv"), "--out", str(tmp_path)) == 2
    shown = capsys.readouterr().err
    assert "does not exist" in shown.replace("\n", " ")
    assert "Traceback" not in shown


def test_what_an_error_notes_is_part_of_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigError("wrong word")
    error.add_note("yesterday's calls are kept")
    with pytest.raises(SystemExit), explained():
        raise error
    assert capsys.readouterr().err == "millie: wrong word; yesterday's calls are kept\n"


def test_a_wrong_setting_names_the_right_ones(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["segment", str(films), "--out", str(tmp_path / "s"), "--set", "crops.size=3"]
    assert _run(monkeypatch, *words) == 2
    assert "unknown key 'crops.size'; known here: size_px" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_shard_that_is_none_is_refused(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "segment", str(films), "--out", str(tmp_path), "--shard", "x") == 2
    assert "expected i/n" in capsys.readouterr().err


def test_detect_ends_with_1_when_one_image_of_two_failed(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next(films.parent.rglob("*.jpg"))
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    words = ["detect", str(good), str(bad), "--out", str(tmp_path / "c.csv")]
    assert _run(monkeypatch, *words) == 1
    shown = capsys.readouterr().out
    assert "bad.jpg" in shown
    assert "cells in 1 image ->" in shown


def test_lenient_ends_with_0_unless_a_patient_is_left_without_a_result(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lost, without = (
        Problem("p", "a.jpg", "ImageError", "cut"),
        Problem("q", "", "E", "no", fatal=True),
    )
    finish([lost], lenient=True)
    for problems, lenient in (([lost], False), ([lost, without], True)):
        with pytest.raises(typer.Exit) as ended:
            finish(problems, lenient=lenient)
        assert ended.value.exit_code == 1
    assert "a.jpg" in capsys.readouterr().out


def test_one_patient_is_not_1_patients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = np.full((40, 40, 3), 200, np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    _run(monkeypatch, "detect", str(tmp_path / "a.png"), "--out", str(tmp_path / "cells.csv"))
    assert "0 cells in 1 image ->" in capsys.readouterr().out


def test_help_names_the_way_to_train_and_the_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "-h") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("millie segment cohort.csv", "millie train store", "Exit codes: 0 all done"):
        assert words in shown


def test_a_zip_is_to_be_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "films.zip", "w") as archive:
        archive.writestr("a.jpg", b"x")
    assert _run(monkeypatch, "detect", str(tmp_path / "films.zip"), "--out", "cells.csv") == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "a ZIP archive; unpack it and give the folder" in shown
    assert "PK" not in shown


def test_detect_writes_its_table_beside_the_pictures(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = str(next(films.parent.rglob("*.jpg")))
    assert _run(monkeypatch, "detect", good, "--overlay", str(tmp_path)) == 0
    assert {path.suffix for path in tmp_path.iterdir()} == {".csv", ".jpg"}
    assert _run(monkeypatch, "detect", good) == 2
    assert "--out cells.csv for a table, or --overlay DIR" in " ".join(
        capsys.readouterr().err.split()
    )


def test_models_and_doctor_print_what_is_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "models") == 0
    assert "efficientnet_lite0" in capsys.readouterr().out
    assert _run(monkeypatch, "doctor") == 0
    assert "torchvision" in capsys.readouterr().out


def test_verify_ends_with_0_1_or_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "verify", "apl-blood") == 0
    assert capsys.readouterr().out.startswith("whole    model  apl-blood: ")
    (tmp_path / "bundle.json").write_bytes(b"{}")
    assert _run(monkeypatch, "verify", str(tmp_path), "apl-blood") == 1
    shown = capsys.readouterr().out
    assert shown.startswith("damaged  model ")
    assert "whole    model  apl-blood" in shown
    assert "bundle.json was altered" in " ".join(shown.split())
    assert _run(monkeypatch, "verify", "apl-blood", str(tmp_path / "none")) == 2


def test_an_interruption_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("millie.cli.doctor.installed", interrupt)
    assert _run(monkeypatch, "models") == 130
    assert "run the same command again" in " ".join(capsys.readouterr().err.split())


def test_a_folder_where_a_table_should_be_written_is_named(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = next(films.parent.rglob("*.jpg"))
    assert _run(monkeypatch, "detect", str(good), "--out", str(tmp_path)) == 2
    shown = capsys.readouterr().err
    assert f"{tmp_path}: Is a directory" in " ".join(shown.split())
    assert ".tmp" not in shown


def test_the_version_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"millie {__version__}\n"
    assert _run(monkeypatch, "predict", "-h") == 0
    assert "Usage" in capsys.readouterr().out


def test_every_profile_is_listed_with_what_it_is() -> None:
    (rows,) = (rows for title, _, rows in installed() if "--profile" in title)
    assert [name for name, _ in rows] == list(profiles())
    assert all(words for _, words in rows)
