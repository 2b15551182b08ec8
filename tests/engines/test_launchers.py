"""Under a launcher of several processes only training runs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from millie.cli import commands as cli
from millie.engines.launchers import PARALLEL, check_alone, launched
from millie.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = sorted(
    command.name or command.callback.__name__  # type: ignore[union-attr]
    for command in cli.app.registered_commands
)


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that torchrun sets."""
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"),
                        ("MASTER_PORT", "1")):  # fmt: skip
        monkeypatch.setenv(name, value)


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["millie", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("two_processes")
@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in PARALLEL])
def test_every_command_but_training_is_refused_before_it_reads_its_words(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, command, "a", "b", "--out", "c") == 2
    assert (
        f"millie {command} runs in a single process, but WORLD_SIZE is 2" in capsys.readouterr().err
    )


@pytest.mark.usefixtures("two_processes")
def test_training_is_let_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "train", str(tmp_path / "none"), "--out", str(tmp_path / "out")) == 2
    assert "runs in a single process" not in capsys.readouterr().err


@pytest.mark.usefixtures("two_processes")
def test_one_process_of_a_launcher_may_do_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="crossval runs in a single process, but WORLD_SIZE is 2"):
        check_alone("crossval")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not launched()
    check_alone("crossval")


def test_half_of_the_variables_are_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    assert not launched()
