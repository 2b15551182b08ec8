"""Warnings are off inside and as before outside, however threads cross."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import pytest

import millie
from millie.errors import no_warnings
from millie.readers.decoding import decoder_boundary


@pytest.mark.parametrize("make", [no_warnings, lambda: decoder_boundary("a.png")])
def test_two_that_enter_and_leave_crosswise_restore_the_filters(make) -> None:
    before = list(warnings.filters)
    first, second = make(), make()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    warnings.warn("still inside", stacklevel=1)  # an error in these tests unless silenced
    second.__exit__(None, None, None)
    assert warnings.filters == before
    with pytest.raises(UserWarning, match="heard again"):
        warnings.warn("heard again", stacklevel=1)


def test_many_threads_leave_no_trace() -> None:
    before = list(warnings.filters)

    def go_in_and_out() -> None:
        for _ in range(200):
            with no_warnings():
                warnings.warn("not heard", stacklevel=1)

    threads = [threading.Thread(target=go_in_and_out) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


def test_an_error_inside_restores_them_too() -> None:
    before = list(warnings.filters)
    with pytest.raises(ValueError, match="inside"), no_warnings():
        raise ValueError("inside")
    assert warnings.filters == before


def test_nothing_else_of_the_package_touches_the_filters() -> None:
    users = [
        path.name
        for path in Path(millie.__file__).parent.rglob("*.py")
        if "catch_warnings" in path.read_text(encoding="utf-8")
    ]
    assert users == ["errors.py"]
