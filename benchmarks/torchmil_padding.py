"""Does padding change what torchmil's models say of a bag, and does the order of its cells?

Every model of torchmil that takes a bag without a graph is given random bags of different lengths,
once padded to one batch with a mask and once bag by bag, and each bag's cells in another order.
Where a model picks its critical cell, all real cells score lower than padding does.
Weights are random; 20 draws of them. Needs ``pip install torchmil``.

    python benchmarks/torchmil_padding.py
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn
from torchmil import models

DIM, LENGTHS, DRAWS = 64, (1, 5, 12), 20
NAMES = ("ABMIL", "CLAM_SB", "DSMIL", "TransformerABMIL", "DTFDMIL", "IIBMIL", "TransMIL")


def logit(model: nn.Module, bag: Tensor, mask: Tensor | None) -> Tensor:
    """Logits (B,) of bags (B, N, D)."""
    torch.manual_seed(0)  # of models that draw in evaluation mode too
    told = {"mask": mask} if "mask" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad():
        found = model(bag, **told)
    return (found[0] if isinstance(found, tuple) else found).reshape(len(bag))


def below(bag: Tensor, weight: Tensor) -> Tensor:
    """The bag moved to where no cell scores higher than zeros, which padding is."""
    score = bag @ weight
    return bag - (score + score.abs() + 0.1)[:, None] * weight / weight.square().sum()


def worst(name: str) -> tuple[float, float, bool]:
    """Largest change of a logit by padding and by order, and whether padding gives NaN."""
    by_padding, by_order, not_a_number = 0.0, 0.0, False
    for draw in range(DRAWS):
        torch.manual_seed(draw)
        model = getattr(models, name)(in_shape=(DIM,)).eval()
        bags = [torch.randn(n, DIM) for n in LENGTHS]
        if name == "DSMIL":
            bags = [below(bag, model.inst_classifier.weight[0].detach()) for bag in bags]
        mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
        padded = logit(model, nn.utils.rnn.pad_sequence(bags, batch_first=True), mask)
        alone = torch.cat([logit(model, bag[None], torch.ones(1, len(bag)) > 0) for bag in bags])
        turned = torch.cat(
            [logit(model, bag.flip(0)[None], torch.ones(1, len(bag)) > 0) for bag in bags]
        )
        not_a_number |= bool(padded.isnan().any())
        by_padding = max(by_padding, float((padded - alone).nan_to_num().abs().max()))
        by_order = max(by_order, float((turned - alone).nan_to_num().abs().max()))
    return by_padding, by_order, not_a_number


if __name__ == "__main__":
    print(f"{'model':18} {'padding':>9} {'order':>9}")
    for name in NAMES:
        try:
            padding, order, broken = worst(name)
        except (TypeError, RuntimeError, AssertionError, ValueError) as error:
            print(f"{name:18} {type(error).__name__}: {str(error).splitlines()[0][:80]}")
            continue
        print(f"{name:18} {padding:9.2g} {order:9.2g}" + ("  padding gives NaN" * broken))
