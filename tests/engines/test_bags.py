"""The first stage of the method on every engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millie import pipeline
from millie.bags.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from millie.config import Config
    from millie.engines.seam import Engine


def test_every_engine_cuts_the_same_bags(
    engine: Engine, films: Path, tiny_store: Path, tiny_config: Config, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    summary = pipeline.segment(pipeline.read_cohort([films]), store, tiny_config, engine)
    assert summary.done == 12
    expected = {p.name: p.read_bytes() for p in Store(tiny_store).bags()}
    assert {p.name: p.read_bytes() for p in Store(store).bags()} == expected
