"""``millie models``: what it lists, and its two commands."""

from __future__ import annotations

import sys

import pytest

from millie.cli import commands as cli


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["millie", "models", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_alone_it_lists_versions_and_the_millie_that_models_need(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("apl-blood ")]
    assert line.split()[:3] == ["apl-blood", "1.0.0", ">=0.1,<0.3"]


@pytest.mark.parametrize(
    ("command", "said"), [("compare", "non-inferior"), ("restate", "weights stay as they are")]
)
def test_its_commands_explain_themselves(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, command, "--help") == 0
    assert said in capsys.readouterr().out


def test_a_store_that_is_none_is_one_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    words = ["apl-blood", "apl-blood", "--store", f"{tmp_path}/none", "--out", f"{tmp_path}/out"]
    assert run(monkeypatch, "compare", *words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_store_has_to_be_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> None:
    assert run(monkeypatch, "compare", "apl-blood", "apl-blood", "--out", f"{tmp_path}/out") == 2
    assert "--store" in capsys.readouterr().err
