"""One experiment from images to the table that stands beside the paper's.

Owns the order: gather, cut, cross-validate with controls, test cells, draw, compare. Everything is
resumable, for each step is the pipeline's own. With a part of the data it runs what can be run and
names the rest.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from millie import pipeline
from millie.bags.store import BagReader, Store
from millie.evaluation.colours import sources_of
from millie.files import write_text
from millie.models.bundle import load_bundle
from millie.models.manifest import MANIFEST
from millie.outputs.report import write_report
from millie.outputs.result_folder import Results, new_results, record_files
from millie.outputs.study.colour_pictures import colour_strips
from millie.outputs.study.controls import read_controls
from millie.outputs.study.records import read_study
from millie.readers.cohort import write_manifest
from millie.reproduce.cell_tests import (
    CellTestResult,
    external_cohorts,
    run_external,
    run_own,
)
from millie.reproduce.comparison import Row, compare, write_comparison, write_page
from millie.reproduce.deviations import of_profile, with_weights
from millie.reproduce.experiments import Experiment, experiment
from millie.reproduce.gather import Gathered, gather, shortfalls
from millie.reproduce.panels import write_panels
from millie.reproduce.robustness import measure_robustness
from millie.reproduce.scored_cells import ExternalRun

if TYPE_CHECKING:
    from millie.config import Config
    from millie.engines.seam import Engine
    from millie.models.bundle import Bundle
    from millie.outputs.study.records import Study
    from millie.pipeline import Progress
    from millie.types import Problem


@dataclass(frozen=True, slots=True)
class Task:
    """What the command line asks for.

    Attributes:
        data: folder with the data sets.
        out: folder for everything.
        config: settings; see :func:`settings`.
        profile: its name, for the table.
        controls: also run the confound controls.
        robustness: also change the images and the bags' sizes.
        engine: for cutting cells; None: serial.
    """

    data: Path
    out: Path
    config: Config
    profile: str = "default"
    controls: bool = True
    robustness: bool = False
    engine: Engine | None = None


@dataclass(frozen=True, slots=True)
class Reproduction:
    """How it ended.

    Attributes:
        out: the folder.
        report: the page.
        rows: the table 'paper | here | interval | protocol differences'.
        controls: confound controls in words, their verdict first; empty where none were run.
        missing: data sets that were not there, in words.
        problems: files and patients that could not be used.
    """

    out: Path
    report: Path
    rows: tuple[Row, ...]
    controls: tuple[str, ...]
    missing: tuple[str, ...]
    problems: tuple[Problem, ...]

    def lines(self) -> list[str]:
        """The table and the controls in words, one a line."""
        return [*(row_line(row) for row in self.rows), *self.controls]


def row_line(row: Row) -> str:
    """A row of the table for the console."""
    paper = f"paper {row.paper}" if row.paper else "not in the paper"
    if row.here is None:
        return f"{row.quantity}: {paper}; here: {row.method}"
    interval = "" if row.low is None else f" ({row.low:.3f} to {row.high:.3f})"
    return f"{row.quantity}: {paper}; here {row.here:.3f}{interval} on {row.n}"


def settings(
    name: str, config: Config, folds: int | None = None, repeats: int | None = None
) -> Config:
    """The configuration for an experiment: its folds, positive class and colour transfer."""
    known = experiment(name)
    update = {
        "folds": folds or known.folds,
        "repeats": repeats or config.evaluation.repeats,
        "positive": known.positive,
    }
    evaluation = config.evaluation.model_copy(update=update)
    training = config.training
    if known.colour_transfer:
        training = training.model_copy(update={"colour_transfer": True})
    return config.model_copy(update={"evaluation": evaluation, "training": training})


def reproduce(name: str, task: Task, progress: Progress = pipeline.silent) -> Reproduction:
    """Run an experiment.

    Args:
        name: of the table of experiments.
        task: data, settings, folder.
        progress: called often.

    Raises:
        ConfigError: no such experiment.
        MissingFileError: fewer than two classes are there; the message says what to get.
        TrainingError: too few patients of a class for the folds.
        BusyError: another run is writing to the folder.
    """
    known = experiment(name)
    gathered = gather(known, task.data)
    with new_results(task.out, "reproduction") as results:
        results.claim()
        return _run(known, gathered, task, results, progress)


def _run(
    known: Experiment, gathered: Gathered, task: Task, results: Results, progress: Progress
) -> Reproduction:
    config, stand_in = with_weights(task.config)
    store = task.out / "store"
    cut = pipeline.segment(gathered.cohort, store, config, task.engine, progress=progress)
    study = task.out / "study"
    checked = pipeline.crossval(store, study, config, controls=task.controls, progress=progress)
    if task.robustness:
        curves = measure_robustness(Store(store), config, study, progress)
        record_files(study, "study", [curves.name])
        write_report(study, store)
    tests, missing, problems = _test_cells(known, gathered, task, config, progress)
    differences = (
        *of_profile(task.profile, task.config), *stand_in, *shortfalls(known, gathered),
        *of_colours(known, Store(store), config),
    )  # fmt: skip
    write_manifest(gathered.cohort, results.new / "cohort.csv", home=task.out)
    rows = _write(known, task, differences, tests, missing, results.new)
    results.publish()
    found = tuple(dict.fromkeys((*cut.problems, *checked.problems, *problems)))
    controls = _control_lines(study) if task.controls else ()
    report = task.out / "report.html"
    return Reproduction(task.out, report, tuple(rows), controls, missing, found)


def _control_lines(study: Path) -> tuple[str, ...]:
    controls, verdict = read_controls(read_study(study))
    told = [f"control {control.name.lower()}: {control.verdict}" for control in controls]
    return (f"Controls: {verdict}", *told)


def of_colours(known: Experiment, store: Store, config: Config) -> tuple[str, ...]:
    """What was done about colours where the paper transfers them."""
    if not known.colour_transfer:
        return ()
    if not config.training.colour_transfer:
        return ("no colour transfer between sources",)
    n_sources = len(set(sources_of(store, [bag.patient for bag in store.index()]).values()))
    if n_sources < 2:
        return ("no colour transfer: there is only one source",)
    done = (
        f"colour transfer between {n_sources} cameras or sites, on the crops, with statistics of "
        "each training part; the paper transfers whole images, with statistics it does not state"
    )
    return (
        done,
        "the model trained on all patients, which scores other sets, has no colour transfer",
    )


def _test_cells(
    known: Experiment, gathered: Gathered, task: Task, config: Config, progress: Progress
) -> tuple[list[CellTestResult], tuple[str, ...], list[Problem]]:
    """All tests of single cells, what is missing for them, and what could not be used."""
    store = Store(task.out / "store")
    study = read_study(task.out / "study")
    own = run_own(known, study, store, gathered.roots, config.evaluation)
    cohorts, absent = external_cohorts(known, task.data)
    missing = dict.fromkeys(m.message for m in (*gathered.missing, *absent))
    if not any(test.where == "external" for test in known.cell_tests):
        return own, tuple(missing), []
    if not cohorts:
        results = [
            CellTestResult(t, why=f"{', '.join(t.datasets)} not found", caveats=t.caveats)
            for t in known.cell_tests
            if t.where == "external"
        ]
        return [*own, *results], tuple(missing), []
    bundle = model_of_all(store, task.out / "model", config, known.name, progress)
    run = ExternalRun(bundle, store, task.out / "cells" / "store", config, task.engine)
    external, problems = run_external(known, cohorts, run, progress)
    return [*own, *external], tuple(missing), problems


def model_of_all(
    store: Store, folder: Path, config: Config, name: str, progress: Progress = pipeline.silent
) -> Bundle:
    """The model of all patients of an experiment, trained unless it is there and fits.

    Its digest of bags and settings lies beside it, so that an older one is made again.
    """
    seals = []
    for path in store.bags():
        with BagReader(path, verify=False) as bag:
            seals.append(bag.sha256)
    digest = hashlib.sha256("".join([*seals, config.digest()]).encode()).hexdigest()
    mark = folder.with_name(f"{folder.name}.digest")
    if folder.is_dir() and mark.is_file() and mark.read_text(encoding="utf-8") == digest:
        return load_bundle(folder)
    if (folder / MANIFEST).is_file():  # a folder that is no model is nobody's to remove
        shutil.rmtree(folder)
    pipeline.train(store.root, folder, _in_own_colours(config), name, progress=progress)
    write_text(mark, digest)
    return load_bundle(folder)


def _in_own_colours(config: Config) -> Config:
    training = config.training.model_copy(update={"colour_transfer": False})
    return config.model_copy(update={"training": training})


def _write(
    known: Experiment,
    task: Task,
    differences: tuple[str, ...],
    tests: list[CellTestResult],
    missing: tuple[str, ...],
    new: Path,
) -> list[Row]:
    """Panels, table and page, in the folder of new results."""
    study: Study = read_study(task.out / "study")
    rows = compare(known, study.metrics, tests, differences)
    write_comparison(new / "comparison.csv", known.name, task.profile, rows)
    panels = write_panels(new / "figure", study, Store(task.out / "store"), tests)
    write_page(
        new / "report.html",
        known,
        task.profile,
        rows,
        panels=panels,
        missing=missing,
        controls=read_controls(study),
        strips=colour_strips(study.folder, Store(task.out / "store"), new / "figure"),
    )
    return rows
