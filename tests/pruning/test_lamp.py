"""LAMP beside its definition."""

from __future__ import annotations

import torch
from tiny_nets import PRUNABLE, tiny_net
from torch import Tensor

from prunescope.core.mask import Mask
from prunescope.engine.untouched import untouched
from prunescope.pruning.scoring import criterion, cut


def naive(weight: Tensor, kept: Tensor) -> Tensor:
    """Eq. 3 of Lee et al. (2021), weight by weight; of equal weights the later one is the smaller."""
    flat, alive = weight.detach().double().flatten(), kept.flatten()
    found = torch.zeros_like(flat)
    for i in range(len(flat)):
        rest = [
            float(flat[j] ** 2)
            for j in range(len(flat))
            if alive[j] and (flat[j].abs() > flat[i].abs() or (flat[j].abs() == flat[i].abs() and j <= i))
        ]
        found[i] = flat[i] ** 2 / sum(rest) if alive[i] else 0
    return found.view_as(weight)


def test_scores_are_the_paper_s() -> None:
    model = tiny_net()
    with torch.no_grad():
        parameters = dict(model.named_parameters())
        parameters[PRUNABLE[-1]].flatten()[:4] = 0.5  # ties
    mask = Mask({name: torch.arange(parameters[name].numel()).view_as(parameters[name]) % 3 > 0 for name in PRUNABLE})
    mask.apply_(model)
    with untouched(model):
        found = criterion("lamp").score(model, mask, batches=None, seed=0)
    for name in PRUNABLE:
        torch.testing.assert_close(found[name], naive(parameters[name], mask[name]))


def test_no_layer_goes_before_all_are_down_to_one_weight() -> None:
    model = tiny_net()
    whole = Mask.dense(model, PRUNABLE)
    last = cut(model, whole, criterion("lamp"), keep=len(PRUNABLE) / whole.total)
    assert [int(kept.sum()) for kept in last.values()] == [1] * len(PRUNABLE)


def test_within_a_layer_it_ranks_as_magnitude_does() -> None:
    model = tiny_net()
    whole = Mask.dense(model, PRUNABLE)
    by_lamp = cut(model, whole, criterion("lamp"), keep=0.3, scope="layer")
    assert by_lamp == cut(model, whole, criterion("magnitude"), keep=0.3, scope="layer")
