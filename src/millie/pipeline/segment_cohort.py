"""From a cohort to its bag store: one unit a patient, and the record of who has no bag.

Owns which patients a store holds after a run: those of the cohort, under the settings of the run,
with the others listed. What happens to one patient is in ``patient``, the files are in ``bags``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from millie.bags.copies import shared_between
from millie.bags.store import DESCRIPTION, Store
from millie.config import Config
from millie.engines.seam import Engine, Outcome, SerialEngine, Unit, shard
from millie.errors import ConfigError, DataError, MissingError, NoCellsError, StoreError
from millie.pipeline.patient import PatientTask, segment_patient
from millie.pipeline.results import SegmentResult
from millie.pipeline.slide_progress import showing
from millie.types import Cohort, Problem

Progress = Callable[[str, int, int], None]
"""``progress(what, done, total)``; called often, must be cheap. While whole slides are read it is
called from a second thread too, with the fields of these slides."""


_CUTTING_STAGES = ("reading", "segmentation", "crops")


def silent(what: str, done: int, total: int) -> None:
    """Progress for callers that want none."""


def fill_store(
    cohort: Cohort,
    store: Path,
    config: Config,
    engine: Engine | None = None,
    part: tuple[int, int] = (0, 1),
    progress: Progress = silent,
    *,
    home: Path | None = None,
    whole: bool = True,
) -> SegmentResult:
    """Cut every patient's cells into the bag store; finished patients are skipped.

    A patient that fails has no bag afterwards, even if an earlier run made one from other files or
    settings: only the images given now are used for training or calls.

    Args:
        cohort: patients and what was wrong when they were read.
        store: folder of the bag store; made if missing.
        config: stages reading, segmentation and crops are used.
        engine: serial when None.
        part: shard ``(index, count)`` of the patients, for job arrays.
        progress: called after each patient.
        home: where the store is to lie, for the paths from its bags to the images; None: the bags
            hold none.
        whole: the store is for all that is to be trained on: name bags of other cohorts in it.

    Raises:
        NoCellsError: not one patient gave a cell.
        ConfigError: another shard cuts this store with other settings.
    """
    bags = Store(store)
    bags.clean()
    place = store.absolute()  # workers on other machines start in other folders
    home = home.resolve() if home else None
    units = [Unit(p.id, PatientTask(p, place, config, home)) for p in cohort.patients]
    units = shard(units, *part)
    if part[1] > 1:
        check_same_settings(bags, config)
    digests = {unit.id: unit.payload.digest() for unit in units}
    _describe(bags, cohort, config, units)
    outcomes: list[Outcome] = []
    progress("segment", 0, len(units))
    with showing(store, progress):
        for outcome in (engine or SerialEngine()).map(segment_patient, units):
            if outcome.status == "failed":
                bags.discard(outcome.unit, digests[outcome.unit])
            outcomes.append(outcome)
            progress("segment", len(outcomes), len(units))
    found = _strangers(bags, cohort) if whole else []
    if whole and part[1] == 1:
        cut = [bags.path_of(p.id) for p in cohort.patients]
        found += [p for pair in shared_between(cut) for p in pair.problems()]
    summary = _summarise(store, outcomes, cohort.problems, found)
    try:
        _describe(bags, cohort, config, units, outcomes)
    except StoreError as error:  # on a full disk the table of what failed must still be shown
        problem = Problem("", DESCRIPTION, type(error).__name__, str(error))
        summary = replace(summary, problems=(*summary.problems, problem))
    if units and not summary.done and not summary.skipped:
        raise NoCellsError(_nothing_usable(summary))
    return summary


def check_same_settings(bags: Store, config: Config) -> None:
    """Refuse to cut one store with two settings.

    Raises:
        ConfigError: the store is described with other settings.
    """
    if not (bags.root / DESCRIPTION).is_file():
        return
    theirs = bags.description.config
    other = [s for s in _CUTTING_STAGES if theirs.digest(s) != config.digest(s)]
    if other:
        raise ConfigError(
            f"{bags.root} is being written with other settings ({', '.join(other)}): every shard "
            "needs the same --config, --profile and --set. To redo it with new settings, run once "
            "without --shard, or give another --out"
        )


def _describe(
    bags: Store,
    cohort: Cohort,
    config: Config,
    units: Sequence[Unit],
    outcomes: Sequence[Outcome] = (),
) -> None:
    """Write what the store is, with the patients that have no bag: of this part and of others."""
    own = {unit.id for unit in units}
    others = {p.id for p in cohort.patients} - own
    try:
        earlier = bags.description.problems
    except (DataError, MissingError):
        earlier = ()
    failed = [_failure(o) for o in outcomes if o.status == "failed"]
    failed += [
        p
        for p in earlier
        if p.fatal and p.patient in others and not bags.path_of(p.patient).exists()
    ]
    order = {patient.id: i for i, patient in enumerate(cohort.patients)}
    failed.sort(key=lambda p: order[p.patient])
    bags.describe(cohort.name, config, cohort.labels, (*cohort.problems, *failed))


def _failure(outcome: Outcome) -> Problem:
    return Problem(outcome.unit, "", outcome.error, outcome.message, fatal=True)


def _strangers(bags: Store, cohort: Cohort) -> list[Problem]:
    """Bags of patients that are not in the cohort: training would use them all the same."""
    known = {bags.path_of(p.id).name for p in cohort.patients}
    return [
        Problem(
            "", path.name, "StoreError",
            f"{path} is left from another cohort and would be used for training: delete it, or "
            "give this cohort another folder",
        )
        for path in bags.files()
        if path.name not in known
    ]  # fmt: skip


def _summarise(
    out: Path, outcomes: Iterable[Outcome], known: Iterable[Problem], found: Iterable[Problem]
) -> SegmentResult:
    problems, done, skipped = list(known), 0, 0
    cells: dict[str, int] = {}
    for outcome in outcomes:
        if outcome.status == "failed":
            problems.append(_failure(outcome))
            continue
        cells[outcome.unit] = outcome.summary["n_cells"]
        done += outcome.status == "done"
        skipped += outcome.status == "skipped"
        problems += [Problem(**p) for p in outcome.summary["problems"]]
    problems += found
    return SegmentResult(out, done, skipped, cells, tuple(problems))


def _nothing_usable(summary: SegmentResult) -> str:
    shown = "; ".join(p.message for p in summary.failures[:3])
    more = f" and {len(summary.failures) - 3} more" if len(summary.failures) > 3 else ""
    return f"no usable cells in any patient: {shown}{more}"
