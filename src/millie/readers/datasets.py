"""Published data sets in one table: listed, explained, prepared by name.

The package ships adapters, never images: each set has its own terms. An adapter reads the published
layout as it is on disk and reports what is wrong with it; see the module of each.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from millie.errors import ConfigError, ManifestError
from millie.readers.all_idb import ALL_IDB1, ALL_IDB2
from millie.readers.apl_aml import APL_AML
from millie.readers.cell_types import AML_LMU, BONE_MARROW_MLL, PBC
from millie.readers.listed import ASH, MARROW_RIECHERT
from millie.readers.munich import MUNICH_AML
from millie.readers.published import Dataset

if TYPE_CHECKING:
    from pathlib import Path

    from millie.types import Cohort

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        ALL_IDB1,
        ALL_IDB2,
        ASH,
        APL_AML,
        MARROW_RIECHERT,
        PBC,
        MUNICH_AML,
        AML_LMU,
        BONE_MARROW_MLL,
    )
}
"""The data sets that ``millie prepare`` knows, by name."""


def dataset(name: str) -> Dataset:
    """The data set of a name.

    Raises:
        ConfigError: there is none of that name.
    """
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    meant = f" (did you mean '{near[0]}'?)" if near else ""
    raise ConfigError(f"unknown data set '{name}'{meant}; known: {', '.join(DATASETS)}")


def prepare(name: str, root: Path) -> Cohort:
    """Read the folder of a published set into a cohort.

    Raises:
        ConfigError: there is no set of that name.
        ManifestError: the folder is not that set; the message shows the expected tree beside the
            one found, and which other set it looks like.
    """
    known = dataset(name)
    try:
        return known.prepare(root)
    except ManifestError as error:
        others = [d.name for d in DATASETS.values() if d is not known and d.layout.fits(root)]
        if known.layout.fits(root) or not others:
            raise
        advice = f"this looks like {' or '.join(others)}: use that name"
        raise ManifestError(f"{error}\n{advice}") from error


def listing() -> list[tuple[str, str]]:
    """Name and one line about each data set, in the order of the table."""
    return [(known.name, known.summary) for known in DATASETS.values()]


def explain(name: str) -> str:
    """What a data set is, where to get it, its terms, traps and folder tree, as plain text.

    Raises:
        ConfigError: there is none of that name.
    """
    return dataset(name).explain()
