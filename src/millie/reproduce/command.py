"""What ``millie reproduce NAME`` runs: an experiment of the paper, or the comparison of fusions.

Owns the choice between the two and the numbers of folds and repeats given on the command line.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from millie.outputs.result_folder import check_kind
from millie.reproduce import pooling, run
from millie.reproduce.experiments import POOLING

if TYPE_CHECKING:
    from millie.pipeline import Progress


def run_experiment(
    name: str,
    task: run.Task,
    folds: int | None,
    repeats: int | None,
    progress: Progress,
) -> run.Reproduction | pooling.PoolingResult:
    """Repeat an experiment, or compare every aggregator on equal terms.

    Args:
        name: of an experiment, or ``pooling``.
        task: data, settings and options.
        folds: None: the paper's.
        repeats: None: once.
        progress: called often.

    Raises:
        ConfigError: no such experiment, or the folder holds another kind of result.
    """
    check_kind(task.out, "reproduction")
    if name == POOLING:
        return pooling.compare_pooling(task, folds, repeats, progress)
    chosen = run.settings(name, task.config, folds, repeats)
    return run.reproduce(name, replace(task, config=chosen), progress)
