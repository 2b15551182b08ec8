"""Nothing that the package reads can run: no pickle, no eval, no loader that would unpickle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import millie

_PACKAGES = frozenset(
    {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
)
_CALLS = frozenset({"eval", "exec", "compile", "__import__", "read_pickle", "import_pickle"})


def findings(source: str) -> Iterator[str]:
    """What in a module could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] in _PACKAGES)
        elif isinstance(node, ast.ImportFrom):
            yield from [node.module or ""] if (node.module or "").split(".")[0] in _PACKAGES else []
        elif isinstance(node, ast.Constant) and node.value in _PACKAGES:
            yield str(node.value)  # a name for importlib
        elif isinstance(node, ast.Call):
            yield from _of_call(node)


def _of_call(call: ast.Call) -> Iterator[str]:
    words = {word.arg: ast.unparse(word.value) for word in call.keywords}
    name = ast.unparse(call.func)
    if name in _CALLS or name.split(".")[-1] in {"read_pickle", "to_pickle"}:
        yield name
    if name == "torch.load" and words.get("weights_only") != "True":
        yield f"{name} without weights_only=True"
    if words.get("allow_pickle", "False") != "False":
        yield f"{name} with allow_pickle"


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from pickle import loads", "import yaml", "importlib.import_module('dill')",
     "eval('1')", "exec(text)", "torch.load(path)", "torch.load(path, weights_only=False)",
     "np.load(path, allow_pickle=True)", "np.load(path, allow_pickle=flag)", "pd.read_pickle(x)"],
)  # fmt: skip
def test_the_search_finds_what_it_is_for(source: str) -> None:
    assert list(findings(source))


def test_no_module_of_the_package_runs_what_it_reads() -> None:
    modules = sorted(Path(millie.__file__).parent.rglob("*.py"))
    assert len(modules) > 100
    found = {path.name: list(findings(path.read_text(encoding="utf-8"))) for path in modules}
    assert {name: what for name, what in found.items() if what} == {}
