"""Digests of the package's own code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from millie import sourcecode
from millie.sourcecode import code_digest


def test_other_parts_have_other_digests() -> None:
    digests = {code_digest("ingest.py"), code_digest("segmentation"), code_digest("types.py")}
    assert len(digests) == 3
    assert all(len(digest) == 64 for digest in digests)


def test_the_order_of_parts_does_not_matter() -> None:
    assert code_digest("ingest.py", "readers") == code_digest("readers", "ingest.py")


def test_a_part_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        code_digest("nowhere")


@pytest.mark.parametrize(
    "name",
    ["segmentation/lobes.py", "segmentation/lobe_model.npz", "segmentation/object_model.npz"],
)
def test_weights_count_as_code_does(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "millie"
    shutil.copytree(Path(sourcecode.__file__).parent / "segmentation", copy / "segmentation")
    monkeypatch.setattr(sourcecode, "files", lambda _: copy)
    before = code_digest.__wrapped__("segmentation")
    assert before == code_digest.__wrapped__("segmentation")
    (copy / name).write_bytes((copy / name).read_bytes() + b"\n")
    assert before != code_digest.__wrapped__("segmentation")
