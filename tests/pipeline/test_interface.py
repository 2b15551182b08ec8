"""``import millie``: public names, examples of the docstrings, results with a table."""

from __future__ import annotations

import doctest
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import millie
from millie.errors import MissingPackageError
from millie.pipeline.results import Result

NAMES = {
    "Config", "crossval", "detect", "evaluate", "load_bundle", "monitor", "predict", "prepare",
    "read_cohort", "segment", "train", "validate",
}  # fmt: skip
SESSION = (
    "read_cohort", "segment", "crossval", "train", "load_bundle", "predict", "monitor",
    "validate", "evaluate", "detect",
)  # fmt: skip
"""Functions in the order of a notebook; the example of each goes on where the last one ended."""


def test_the_public_names() -> None:
    assert set(millie.__all__) == NAMES | {"__version__"}
    assert set(dir(millie)) >= NAMES
    assert all(callable(getattr(millie, name)) for name in NAMES)
    with pytest.raises(AttributeError, match="no attribute 'predcit'"):
        millie.predcit  # noqa: B018


def test_importing_it_imports_nothing_heavy() -> None:
    heavy = {"torch", "cv2", "numpy", "scipy", "pydantic", "h5py"}
    code = f"import sys, millie; sys.exit(bool({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603


@pytest.fixture(scope="module")
def session(films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the examples of all docstrings leave behind, run in one folder."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copytree(films.parent, folder / "films")
    (folder / "films" / films.name).rename(folder / "films" / "manifest.csv")
    found: dict[str, object] = {"folder": folder}
    runner = doctest.DocTestRunner(verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in SESSION:
            text = getattr(millie, name).__doc__
            example = doctest.DocTestParser().get_doctest(text, found, name, None, 0)
            assert example.examples, f"millie.{name} has no example"
            failed = runner.run(example, clear_globs=False).failed
            assert not failed, f"the example of millie.{name} does not hold"
            found = example.globs
    return found


def test_every_function_has_an_example_that_holds(session: dict[str, object]) -> None:
    assert set(SESSION) == NAMES - {"Config", "prepare"}
    assert session["calls"]


@pytest.mark.parametrize("name", ["cells", "study", "model", "calls", "report", "found"])
def test_results_are_tables(session: dict[str, object], name: str) -> None:
    result = session[name]
    assert isinstance(result, Result)
    rows = result.rows()
    assert rows
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["rows"] == json.loads(json.dumps(rows))
    frame = result.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == list(rows[0])
    assert len(frame) == len(rows)


def test_a_frame_without_pandas_says_what_to_install(
    session: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    calls = session["calls"]
    assert isinstance(calls, Result)
    with pytest.raises(MissingPackageError, match="pip install pandas"):
        calls.to_frame()


def test_the_table_is_that_of_the_file(session: dict[str, object]) -> None:
    calls, folder = session["calls"], session["folder"]
    assert isinstance(calls, Result)
    assert isinstance(folder, Path)
    written = pd.read_csv(folder / calls.out / "predictions.csv")
    frame = calls.to_frame()
    assert list(written["patient"]) == list(frame["patient"])
    assert set(frame.columns) <= set(written.columns)
