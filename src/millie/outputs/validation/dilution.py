"""How small a share of a patient's cells is flagged, in mixtures and in real patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from millie.outputs.figure_files import svg_uri
from millie.outputs.validation.cases import URGENT, Figure, Question
from millie.outputs.validation.drawing import shares_figure
from millie.outputs.validation.plan import DilutionPlan, Plan
from millie.outputs.validation.section import Picture, Section, Table
from millie.outputs.validation.trials import Trial, in_words, patients_of, share_of
from millie.outputs.validation.verdict import Criterion, judge
from millie.statistics.intervals import Estimate

KEY = "dilution"
_CRITERION = "max_smallest_share_percent"
_SMALLEST = "smallest share of a patient’s cells that is flagged"
_COLUMNS = (
    "Patient’s cells", "Patients", "Mixtures", "Called", "Urgent", "Indeterminate",
    "Called otherwise",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _AtShare:
    """Mixtures with one share of a patient's cells, in percent, and how many are flagged."""

    percent: float
    trials: Sequence[Trial]
    flagged: Estimate

    def row(self, question: Question) -> list[str]:
        """As a row of the table."""
        named = [one.called for one in self.trials if one.called is not None]
        yes = sum(question.holds(called) for called in named)
        urgent = sum(one.state == URGENT for one in self.trials)
        unsure = len(self.trials) - len(named) - urgent
        return [
            f"{self.percent:g} %", str(patients_of(self.trials)), str(len(self.trials)), str(yes),
            str(urgent), str(unsure), str(len(named) - yes), in_words(self.flagged),
        ]  # fmt: skip


def dilution(
    trials: Sequence[Trial],
    question: Question,
    plan: Plan,
    why_not: str,
    *,
    from_data: Table | None = None,
    abnormal_percent: float | None = None,
) -> Section:
    """The section.

    Args:
        trials: mixtures, their condition the share in percent; 0: none of a patient with disease.
        question: what flagged means: its answer is yes, or, where that counts, the state urgent.
        plan: shares and criterion.
        why_not: why there are none.
        from_data: patients by their manual count, where that was given.
        abnormal_percent: median manual percentage of abnormal cells of these patients.
    """
    title, asked = "Smallest share of abnormal cells that is flagged", plan.dilution
    asked = asked or DilutionPlan()
    lead = (
        f"In silico: {asked.cells} cells, some drawn at random from a patient with "
        f"{question.subject}, the others from a patient without, called by the whole rule. No cell "
        "is chosen by what the model says of it. The share is that of the patient’s cells: that "
        "of abnormal cells is at most as large. At 0 % there is none: what is flagged there is a "
        "false alarm. A mixture of two films is no real film: stain and light of the two differ."
    )
    data = () if from_data is None else (from_data,)
    if not trials:
        lines = judge(_CRITERION, _SMALLEST, None, asked.max_smallest_share_percent,
                      plan.study.judged_by, section=KEY, missing=why_not)  # fmt: skip
        return Section(KEY, title, lead, criteria=tuple(lines), tables=data, why_not=why_not)
    found = _by_share(trials, question, asked, plan)
    smallest, why = _smallest({one.percent: one.flagged.value for one in found}, asked)
    figures = [Figure(KEY, _SMALLEST, smallest, None, None, patients_of(trials), "%")]
    if smallest is not None and abnormal_percent is not None:
        name = "the same in abnormal cells by eye (median patient)"
        figures.append(Figure(KEY, name, smallest * abnormal_percent / 100, None, None, 0, "%"))
    what = asked.flagged.replace("_", " ")
    table = Table("", [*_COLUMNS, f"Flagged: {what}"], [one.row(question) for one in found])
    return Section(
        KEY, title, lead, tuple(figures), tuple(_criteria(figures[0], why, asked, plan)),
        (table, *data), (_picture(found, what, asked),),
    )  # fmt: skip


def _by_share(
    trials: Sequence[Trial], question: Question, asked: DilutionPlan, plan: Plan
) -> list[_AtShare]:
    urgent = asked.flagged == "called_or_urgent"
    found = []
    for percent in sorted({float(one.condition) for one in trials}):
        own = [one for one in trials if float(one.condition) == percent]
        share = share_of(own, lambda one: one.flagged(question, urgent=urgent), plan)
        found.append(_AtShare(percent, own, share))
    return found


def _smallest(flagged: Mapping[float, float], asked: DilutionPlan) -> tuple[float | None, str]:
    """The smallest share from which on every larger one is flagged often enough, or why none is."""
    if flagged.get(0.0, 0.0) >= asked.flagged_share:
        return None, "mixtures without any cell of a patient with disease are flagged as often"
    found = None
    for percent, value in sorted(flagged.items(), reverse=True):
        if value < asked.flagged_share:
            break
        found = percent
    if found is None:
        return None, f"at no share were {asked.flagged_share:g} of the mixtures flagged"
    return found, ""


def _criteria(figure: Figure, why: str, asked: DilutionPlan, plan: Plan) -> list[Criterion]:
    limit = asked.max_smallest_share_percent
    if why and limit is not None:
        return [Criterion(KEY, _CRITERION, _SMALLEST, f"at most {limit:g}", why, "not met")]
    return judge(_CRITERION, _SMALLEST, figure, limit, plan.study.judged_by, section=KEY)


def _picture(found: Sequence[_AtShare], what: str, asked: DilutionPlan) -> Picture:
    shares = [(one.flagged.value, one.flagged.low, one.flagged.high) for one in found]
    figure = shares_figure(
        [one.percent for one in found], {what: shares}, "patient’s cells in the mixture, %",
        "share of mixtures", asked.flagged_share, logarithmic=True,
    )  # fmt: skip
    return Picture(svg_uri(figure), "Share of mixtures flagged; see the table.", 480)
