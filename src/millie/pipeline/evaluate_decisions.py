"""Calls beside what people concluded about the same samples in the review app."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from millie.errors import DataError
from millie.files import write_csv, write_text
from millie.outputs.result_folder import check_kind
from millie.pipeline.inputs import PathLike, paths_of
from millie.pipeline.results import EvaluateResult
from millie.pipeline.validate_runs import questions

if TYPE_CHECKING:
    from millie.outputs.validation.cases import Figure
    from millie.outputs.validation.decisions import Decisions

SEEN = (
    "The people who concluded saw the call first, unless they worked blind-first: agreement is "
    "then higher than with a diagnosis made without it."
)


def evaluate(
    runs: PathLike | Sequence[PathLike],
    decisions: PathLike,
    out: PathLike,
    model: PathLike | None = None,
) -> EvaluateResult:
    r"""Compare calls with the conclusions that people signed in the review app.

    Each patient counts once, with its first call. Patients without a call are counted both ways, as
    in a validation (CLSI EP12).

    Args:
        runs: folders that ``predict`` wrote, of one model; those of the review app are
            ``DATA/samples/*/*/calls``.
        decisions: ``conclusions.csv`` or ``decisions.json``, from the page Quality.
        out: folder for ``evaluation.csv`` and ``evaluation.json``.
        model: bundle of the runs; None: the shipped one of that name.

    Raises:
        MissingFileError: a file or folder does not exist.
        ConfigError: runs of several models, or an ``out`` that holds something else.
        DataError: the file is not one of the review app's, or no conclusion goes with a call.

    Example:
        >>> from pathlib import Path
        >>> _ = Path("conclusions.csv").write_text("sample,version,holds,diagnosis\n" + "".join(
        ...     f"{p.patient},1,1,{p.label}\n" for p in calls.predictions))
        >>> agreed = millie.evaluate("calls", "conclusions.csv", "evaluation", model="my-model")
        >>> agreed.rows()[0]["figure"]
        'overall agreement, without a call counted as disagreement'
    """
    from millie.outputs.validation.agreement import agreement
    from millie.outputs.validation.cases import cases_of
    from millie.outputs.validation.decisions import as_json, read_decisions
    from millie.outputs.validation.plan import Plan
    from millie.pipeline.validate_inputs import find_model, one_series

    folder = Path(out)
    check_kind(folder, "other")
    decided = read_decisions(Path(decisions))
    series, problems = one_series(paths_of(runs), None)
    named = find_model(series.model, model if isinstance(model, str | None) else Path(model))
    headline, classes, negative = questions(series, named)
    labels = series.model.labels
    results = sorted((r for run in series.runs for r in run.counted), key=lambda r: r.patient)
    reference = decided.reference(labels)
    cases = cases_of(results, reference, {}, series.model, negative)
    known = [case for case in cases if case.reference is not None]
    if not known:
        raise DataError(
            f"no conclusion in {decisions} goes with a call in these runs: give the runs of the "
            "same samples, DATA/samples/*/*/calls"
        )
    section = agreement(cases, headline, classes, Plan())
    figures = [*section.figures, *_of_cells(decided)]
    remarks = [SEEN, *_left_out(decided, labels, len(results) - len(known))]
    folder.mkdir(parents=True, exist_ok=True)
    rows = [figure.row() for figure in figures]
    write_csv(folder / "evaluation.csv", list(rows[0]), [list(row.values()) for row in rows])
    write_text(folder / "evaluation.json", as_json(rows, remarks))
    return EvaluateResult(folder, len(known), tuple(rows), tuple(remarks), tuple(problems))


def _of_cells(decided: Decisions) -> list[Figure]:
    """How often a kind that was suggested for a cell is the one that a person decided."""
    from millie.outputs.validation.cases import Figure
    from millie.statistics.rates import rate

    kinds = {decision for _, decision in decided.cells}
    named = [(suggested, found) for suggested, found in decided.cells if suggested in kinds]
    if not named:
        return []
    same = rate(sum(suggested == found for suggested, found in named), len(named))
    return [Figure.of_rate("cells", "suggested kind is the decided one, of cells", same)]


def _left_out(decided: Decisions, labels: Sequence[str], without: int) -> list[str]:
    told = [
        f"{n} conclusion{'s' if n > 1 else ''} '{diagnosis}' left out: no answer of this model"
        for diagnosis, n in sorted(decided.left_out(labels).items())
    ]
    return told + ([f"{without} called without such a conclusion"] if without else [])
