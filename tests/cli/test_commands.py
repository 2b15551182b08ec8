"""The command line: words, messages, exit codes."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from millie import __version__
from millie.cli import commands as cli
from millie.cli.doctor import installed
from millie.cli.exits import explained
from millie.config import profiles
from millie.errors import ConfigError

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
     "doctor", "verify", "monitor", "export", "import-features", "serve", "tokens"],
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
    assert "cells in 1 images" in shown


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
