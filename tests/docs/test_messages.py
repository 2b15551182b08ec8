"""Messages quoted in the troubleshooting are those of the program."""

from __future__ import annotations

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def messages() -> list[str]:
    """All messages of the package, by the code that lists them on the site."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / "_extensions")
        from error_messages import raised_messages  # noqa: PLC0415

    return [" ".join(message.text.split()) for message in raised_messages()]


def _quoted() -> list[str]:
    text = (DOCS / "reference" / "troubleshooting.md").read_text(encoding="utf-8")
    blocks = [part for part in text.split("\n\n") if part.startswith("> ")]
    return [" ".join(block.replace("> ", "").split()) for block in blocks]


def test_messages_are_found_in_the_source(messages: list[str]) -> None:
    assert len(messages) > 300
    assert "configuration file … does not exist" in messages


@pytest.mark.parametrize("quote", _quoted())
def test_a_quoted_message_is_one_of_the_program(messages: list[str], quote: str) -> None:
    assert quote in messages
