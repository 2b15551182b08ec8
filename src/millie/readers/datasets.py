"""Published data sets: what they are, where to get them, and their adapters, in one table.

The package ships adapters, never images: each set has terms of its own. An adapter reads the
published layout as it lies on disk and says what is wrong with it; see the module of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from millie.readers import apl_aml
from millie.types import Cohort


@dataclass(frozen=True, slots=True)
class Dataset:
    """A published set of images with diagnoses.

    Attributes:
        name: as typed on the command line.
        description: what it shows and how large it is.
        source: where to get it.
        terms: under which conditions.
        layout: the folder tree that ``prepare`` expects.
        prepare: reads the folder of the set into a cohort; raises ManifestError, showing the
            expected tree beside the one found, if the folder is not that set.
    """

    name: str
    description: str
    source: str
    terms: str
    layout: str
    prepare: Callable[[Path], Cohort]


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="apl_aml",
            description=(
                "CellaVision crops of single leukocytes in peripheral blood, APL against other "
                "AML: 106 patients, 25,724 files, 0.1 um/px (Sidhom et al. 2021). The Discovery "
                "cohort becomes split 'train', the later Validation cohort split 'test'."
            ),
            source=(
                "figshare doi 10.6084/m9.figshare.14294675; "
                "kaggle.com/eugeneshenderov/acute-promyelocytic-leukemia-apl; "
                "github.com/sidhomj/DeepAPL"
            ),
            terms="Copyright Johns Hopkins University; see the source before any use.",
            layout=apl_aml.LAYOUT,
            prepare=apl_aml.prepare,
        ),
    )
}
"""The data sets that ``millie prepare`` knows, by name."""
