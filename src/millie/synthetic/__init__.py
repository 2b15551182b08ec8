"""Synthetic blood films with known truth, for the demo, tests and benchmarks."""

from millie.synthetic.cohort import (
    DISEASES,
    NORMAL_DIFFERENTIAL,
    CohortConfig,
    Disease,
    write_cohort,
    write_configured_cohort,
)
from millie.synthetic.film import FilmConfig, SyntheticField, TrueCell, draw_cell, draw_field
from millie.synthetic.leukocytes import CellType
from millie.synthetic.stain import PatientStyle, draw_style

__all__ = [
    "DISEASES",
    "NORMAL_DIFFERENTIAL",
    "CellType",
    "CohortConfig",
    "Disease",
    "FilmConfig",
    "PatientStyle",
    "SyntheticField",
    "TrueCell",
    "draw_cell",
    "draw_field",
    "draw_style",
    "write_cohort",
    "write_configured_cohort",
]
