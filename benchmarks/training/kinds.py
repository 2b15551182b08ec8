"""The layer of kinds of the encoder `blood_cell`: four lines of blood cells, or none of them.

The ten types that the network has learnt are summed to lines, and a linear map from the final
vectors is fitted to those sums (distillation, Hinton et al. 2015). It sees the network's own
probabilities of unlabelled and labelled cells, no further label.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from cell_views import Cells, plain
from learner import TYPES, Learner
from torch import Tensor
from torch.nn import functional
from whitening import KEPT, vectors_of

from millie.models.blood_cell import KINDS, BloodCellEncoder

LINES = {
    "neutrophil": ("segmented neutrophil", "band neutrophil"),
    "immature granulocyte": ("metamyelocyte", "myelocyte", "promyelocyte"),
    "monocyte": ("monocyte",),
    "lymphocyte": ("lymphocyte",),
}
_DECAY = 1e-4


def kinds_of(
    network: Learner, encoder: Mapping[str, Tensor], cells: Cells, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Weight (5, 274) and bias (5,) of the layer ``kinds`` over the encoder's vectors."""
    planes = cells.planes[rng.permutation(len(cells))[:KEPT]]
    with torch.no_grad():
        chunks = [plain(planes[i : i + 128]) for i in range(0, len(planes), 128)]
        types = torch.cat([network.types(network(chunk)) for chunk in chunks]).softmax(1)
    lines = [types[:, [TYPES.index(name) for name in LINES[line]]].sum(1) for line in KINDS[:-1]]
    wanted = torch.stack([*lines, 1 - torch.stack(lines).sum(0)], dim=1).double()
    package = BloodCellEncoder().eval()
    package.load_state_dict({k: v.float() for k, v in encoder.items()}, strict=False)
    return distilled(torch.from_numpy(vectors_of(package.parts, planes)), wanted, package)


def distilled(parts: Tensor, wanted: Tensor, encoder: BloodCellEncoder) -> dict[str, Tensor]:
    """Fit on the learnt features, which are standardised for it, then carry over the last map."""
    learnt = parts[:, : parts.shape[1] - encoder.measurements.dim]
    mean, std = learnt.mean(0), learnt.std(0).clamp(min=1e-6)
    inputs = (learnt - mean) / std
    weight = torch.zeros(wanted.shape[1], inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(wanted.shape[1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        cost = functional.cross_entropy(inputs @ weight.T + bias, wanted)
        (cost + _DECAY * weight.square().sum()).backward()
        return cost

    optimiser.step(loss)
    own = torch.zeros(len(bias), parts.shape[1], dtype=torch.float64)
    own[:, : learnt.shape[1]] = weight.detach() / std
    offset = bias.detach() - own[:, : learnt.shape[1]] @ mean
    back = torch.linalg.inv(encoder.whitening.weight.detach().double())
    whole = own @ back
    return {
        "kinds.weight": whole.float().contiguous(),
        "kinds.bias": (offset - whole @ encoder.whitening.bias.detach().double()).float(),
    }
