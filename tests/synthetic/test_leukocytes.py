"""Each type of leukocyte, painted alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import ndimage

from millie.synthetic import nuclei
from millie.synthetic.leukocytes import RECIPES, CellType, Stamp, paint
from millie.synthetic.shapes import draw_noise, square_grid
from millie.synthetic.stain import Dye

UM_PX = 0.12


def stamps(kind: CellType, n: int = 12) -> list[Stamp]:
    rng = np.random.default_rng(3)
    noise = draw_noise(UM_PX, rng)
    return [paint(kind, UM_PX, noise, rng) for _ in range(n)]


def mean_amount(kind: CellType, dye: Dye) -> float:
    """Mean amount of a dye in the cytoplasm."""
    values = [s.amounts[dye][(s.cell > 0.9) & (s.nucleus < 0.1)].mean() for s in stamps(kind)]
    return float(np.mean(values))


def nuclear_share(kind: CellType) -> float:
    return float(np.mean([s.nucleus.sum() / s.cell.sum() for s in stamps(kind)]))


def test_every_type_but_smudge_has_a_recipe() -> None:
    assert set(RECIPES) == set(CellType) - {CellType.SMUDGE}


@pytest.mark.parametrize("kind", CellType)
def test_a_stamp_is_whole(kind: CellType) -> None:
    for stamp in stamps(kind, 6):
        assert stamp.amounts.shape == (len(Dye), *stamp.cell.shape)
        assert np.isfinite(stamp.amounts).all()
        assert stamp.amounts.min() >= -1e-5
        assert np.all(stamp.nucleus <= stamp.cell)
        edge = np.concatenate([stamp.cell[0], stamp.cell[-1], stamp.cell[:, 0], stamp.cell[:, -1]])
        assert edge.max() < 0.5, "the cell leaves its patch"
        assert stamp.nucleus.max() > 0.99


@pytest.mark.parametrize("kind", list(RECIPES))
def test_size_is_that_of_the_recipe(kind: CellType) -> None:
    low, high = RECIPES[kind].diameter_um
    diameters = [2 * stamp.radius_um for stamp in stamps(kind)]
    assert 0.93 * low <= min(diameters)
    assert max(diameters) <= 1.07 * high
    assert max(diameters) - min(diameters) > 0.3 * (high - low)


def test_nuclei_fill_blasts_and_leave_room_in_granulocytes() -> None:
    order = [CellType.SEGMENTED_NEUTROPHIL, CellType.PROMYELOCYTE, CellType.MYELOBLAST,
             CellType.LYMPHOBLAST]  # fmt: skip
    shares = [nuclear_share(kind) for kind in order]
    assert all(low < high for low, high in pairwise(shares)), shares
    assert shares[-1] > 0.7


def test_dyes_of_the_cytoplasm_tell_the_types() -> None:
    assert mean_amount(CellType.EOSINOPHIL, Dye.ORANGE) > 0.2
    assert mean_amount(CellType.SEGMENTED_NEUTROPHIL, Dye.ORANGE) == 0
    kinds = (CellType.MYELOBLAST, CellType.PROMYELOCYTE, CellType.APL_PROMYELOCYTE)
    granules = [mean_amount(kind, Dye.AZUROPHIL) for kind in kinds]
    assert granules[0] < granules[1] < granules[2]
    assert mean_amount(CellType.MYELOBLAST, Dye.BASOPHIL) > 3 * mean_amount(
        CellType.SEGMENTED_NEUTROPHIL, Dye.BASOPHIL
    )


def test_segmented_nuclei_have_two_to_five_lobes_and_filaments() -> None:
    grid = square_grid(160, 0.08)
    rng = np.random.default_rng(0)
    lobes = []
    for _ in range(40):
        shape = nuclei.segmented(grid, 4.5, rng)
        assert ndimage.label(shape < 0)[1] == 1, "lobes hang together"
        lobes.append(int(ndimage.label(shape < -0.55)[1]))
    assert set(lobes) <= {1, 2, 3, 4, 5}
    assert np.mean(np.array(lobes) >= 2) > 0.6


def test_chromatin_of_lymphocytes_is_coarser_than_that_of_blasts() -> None:
    def contrast(kind: CellType) -> float:
        values = []
        for stamp in stamps(kind):
            inside = stamp.amounts[Dye.CHROMATIN][
                ndimage.binary_erosion(stamp.nucleus > 0.9, None, 8)
            ]
            values.append(inside.std() / inside.mean())
        return float(np.mean(values))

    assert contrast(CellType.LYMPHOCYTE) > 1.2 * contrast(CellType.LYMPHOBLAST)


def test_some_apl_promyelocytes_carry_bundles_of_rods() -> None:
    peaks = [float(s.amounts[Dye.AZUROPHIL].max()) for s in stamps(CellType.APL_PROMYELOCYTE, 30)]
    assert max(peaks) > 1.5 * np.median(peaks)
