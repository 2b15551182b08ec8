"""How soon `millie monitor` finds a change of a number: simulated patients, normal values.

    python benchmarks/monitoring.py

Five numbers are followed, so the limit is 5 / 0.05 = 100.
"""

from __future__ import annotations

import numpy as np

from millie.statistics.drift import martingale

STREAMS = 40
LIMIT = 100.0
AFTER = 50
"""Patients after the change."""


def found_after(before: int, shift: float) -> list[int]:
    """Patients until the alarm, for each stream that has one after the change."""
    rng = np.random.default_rng(0)
    found = []
    for seed in range(STREAMS):
        values = rng.normal(size=before + AFTER)
        values[before:] += shift
        beyond = np.flatnonzero(martingale(values, seed) >= LIMIT)
        if len(beyond) and beyond[0] >= before:
            found.append(int(beyond[0]) - before + 1)
    return found


if __name__ == "__main__":
    print("patients before, shift (sd): alarms of", STREAMS, "streams within", AFTER, "; median")
    for before in (25, 50, 100):
        for shift in (0.0, 1.0, 2.0, 3.0):
            found = found_after(before, shift)
            median = f"{np.median(found):.0f}" if found else "-"
            print(f"{before:4} {shift:4}: {len(found):3}  {median}")
