from __future__ import annotations

import math
import os

from markupsafe import Markup

from millie.outputs.page import count, decimal, moment, percent, visible


def test_numbers_in_words() -> None:
    assert percent(0.004) == "<1%"
    assert percent(0) == "0%"
    assert decimal(None) == decimal(math.nan) == "–"
    assert (count(1, "cell"), count(1204, "cell")) == ("1 cell", "1,204 cells")
    assert count(2, "entry", "entries") == "2 entries"


def test_times_are_shown_in_utc() -> None:
    assert moment("2026-01-02T05:04:05+02:00") == "2026-01-02 03:04 UTC"
    assert moment("2026-01-02T05:04:05") == "2026-01-02 05:04"
    assert moment("yesterday") == "yesterday"


def test_hidden_and_turning_characters_become_visible() -> None:
    assert visible("a\u202eb\u0000c") == "a\ufffdb\ufffdc"
    assert visible("µm\u00a0") == "µm\u00a0"
    assert visible(Markup("\u202e")) == "\u202e"
    assert visible(3) == 3


def test_names_that_are_not_utf8_stay_apart() -> None:
    first, second = (str(visible(os.fsdecode(b"M" + byte))) for byte in (b"\xfc", b"\xe4"))
    assert (first, second) == ("M\\udcfc", "M\\udce4")
