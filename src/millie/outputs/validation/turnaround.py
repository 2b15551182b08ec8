"""How long a call takes, from where the laboratory starts its clock."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from millie.outputs.figure_files import svg_uri
from millie.outputs.validation.cases import Figure
from millie.outputs.validation.drawing import times_figure
from millie.outputs.validation.plan import Plan
from millie.outputs.validation.section import Picture, Section
from millie.outputs.validation.verdict import judge
from millie.statistics.quantiles import quantile_interval

KEY = "turnaround"
_MEDIAN, _P90 = "median", "90th percentile"


def turnaround(minutes: Mapping[str, float], plan: Plan, why_not: str) -> Section:
    """The section, of the minutes by patient."""
    title = "Turnaround"
    lead = (
        "Minutes from where the laboratory starts its clock to the call, of its own table. "
        "Quantiles with intervals that assume no distribution (order statistics)."
    )
    asked, found = plan.turnaround, {}
    values = np.array(list(minutes.values()), float)
    if len(values):
        for name, share in ((_MEDIAN, 0.5), (_P90, 0.9)):
            one = quantile_interval(values, share, plan.study.confidence)
            found[name] = Figure.of(KEY, name, one, len(values), "min")
    wanted = [("max_median_minutes", _MEDIAN, asked.max_median_minutes),
              ("max_p90_minutes", _P90, asked.max_p90_minutes)]  # fmt: skip
    lines = tuple(
        line
        for key, name, limit in wanted
        for line in judge(key, name, found.get(name), limit, plan.study.judged_by, section=KEY,
                          missing=why_not)
    )  # fmt: skip
    if not len(values):
        return Section(KEY, title, lead, criteria=lines, why_not=why_not)
    limits = {f"{name} asked for": limit for _, name, limit in wanted if limit is not None}
    picture = Picture(
        svg_uri(times_figure(values, limits)),
        f"Share of {len(values)} patients over minutes: median {np.median(values):g}, longest "
        f"{values.max():g}.", 480,
    )  # fmt: skip
    return Section(KEY, title, lead, tuple(found.values()), lines, pictures=(picture,))
