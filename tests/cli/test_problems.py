"""Problems and notes: few are named, many are counted, all on demand."""

from __future__ import annotations

import pytest

from millie.cli.console import complain, list_problems
from millie.cli.problems import failures, notes
from millie.readers.content import copy_note, note
from millie.types import Finding, Problem

COPIES = [copy_note("P1", f"b{i}.jpg", f"a{i}.jpg") for i in range(1605)]
BROKEN = [Problem("P1", f"c{i}.jpg", "ImageError", f"c{i}.jpg: truncated") for i in range(7)]


def test_many_notes_of_a_kind_are_one_line() -> None:
    found = notes([*COPIES, *BROKEN])
    assert [line.text for line in found.lines] == [
        "1,605 images repeat others, wholly or in part: every cell counted once"
    ]
    assert not found.complete
    every = notes(COPIES, every=True)
    assert every.complete
    assert sum(line.text.startswith("identical to") for line in every.lines) == 1605


def test_few_notes_are_named_and_notes_of_their_own_kind_are_not_summed_up() -> None:
    own = [note("", "", f"fact {i}") for i in range(12)]
    found = notes([*COPIES[:2], *own])
    texts = [line.text for line in found.lines]
    assert texts[:2] == ["P1  b0.jpg", "identical to a0.jpg: counted once"]
    assert texts[-12:] == [f"fact {i}" for i in range(12)]
    assert found.complete
    assert notes(own * 2).lines[-1].text == "and 4 more"


def test_many_failures_of_a_kind_are_counted_with_examples() -> None:
    found = failures([*BROKEN, *COPIES])
    texts = [line.text for line in found.lines]
    assert texts[0] == "7 images could not be read, for example"
    assert texts[1:3] == ["P1  c0.jpg", "truncated"]
    assert "P1  c3.jpg" not in texts
    assert len(failures(BROKEN, every=True).lines) == 14


def test_a_foreign_error_keeps_its_name() -> None:
    lost = [
        Problem("P1", "", "MemoryError", "", fatal=True),
        Problem("P2", "", "RuntimeError", "x"),
    ]
    assert [line.text for line in failures(lost).lines] == [
        "P1", "MemoryError", "P2", "RuntimeError: x",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [f for f in Finding if f is not Finding.NOTE])
def test_every_kind_has_a_sentence(kind: Finding) -> None:
    as_note = notes([Problem("", "", kind, "x", note=True)] * 99).lines
    as_failure = failures([Problem("", "", kind, "x")] * 99).lines
    assert any(lines[0].text.startswith("99 ") for lines in (as_note, as_failure))


def test_single_cell_images_are_counted_by_why_they_were_left_out() -> None:
    whys = ["left out: greyscale: colour is needed"] * 5 + ["left out: the image is empty"] * 4
    shown = notes([note("P", f"{i}.png", w, Finding.EXCLUDED) for i, w in enumerate(whys)])
    assert [line.text for line in shown.lines] == [
        "5 single-cell images left out: greyscale: colour is needed",
        "4 single-cell images left out: the image is empty",
    ]


def test_problems_and_notes_have_titles_of_their_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert not list_problems(COPIES)
    shown = capsys.readouterr().out
    assert shown.startswith("\nNotes\n    1,605 images")
    assert "Could not be used" not in shown
    assert "--all-problems" in shown
    assert list_problems(BROKEN[:1])
    shown = capsys.readouterr().out
    assert shown == "\nCould not be used\n    P1  c0.jpg\n        truncated\n"


def test_a_hostile_name_steers_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    list_problems([Problem("[bold]x", "a\x1b[2J\n.jpg", "ImageError", "[/] truncated")])
    complain("[red]\x1b]0;x")
    shown = capsys.readouterr()
    assert "[bold]x  a\\x1b[2J" in shown.out
    assert "[/] truncated" in shown.out
    assert "[red]\\x1b]0;x" in shown.err
    assert "\x1b" not in shown.out + shown.err


def test_words_are_wrapped_and_paths_are_left_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    path = "a folder with spaces/" * 5 + "x.jpg"
    list_problems([Problem("", path, "ImageError", "words " * 30)])
    lines = capsys.readouterr().out.split("\n")
    assert f"    {path}" in lines
    assert all(len(line) <= 60 for line in lines if "words" in line)
