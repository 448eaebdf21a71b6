"""FPGM beside a loop over pairs of filters, and on filters of which one is in the middle."""

from __future__ import annotations

import torch
from tiny_nets import PRUNABLE, tiny_net
from torch import nn

from prunescope.core.mask import Mask
from prunescope.engine.untouched import untouched
from prunescope.pruning.granularity import granularity
from prunescope.pruning.scoring import criterion, cut


def test_it_is_a_loop_over_pairs_of_living_filters() -> None:
    model = tiny_net()
    mask = Mask.dense(model, PRUNABLE)
    mask = Mask(
        {name: kept & (torch.arange(len(kept)) != 1).view(-1, *[1] * (kept.ndim - 1)) for name, kept in mask.items()}
    )
    mask.apply_(model)
    with untouched(model):
        found = criterion("fpgm").score(model, mask, batches=None, seed=0)
    for name in PRUNABLE:
        rows = dict(model.named_parameters())[name].detach().double().flatten(1)
        for i in range(len(rows)):
            wanted = sum(float((rows[i] - rows[j]).norm()) for j in range(len(rows)) if j != 1)
            torch.testing.assert_close(found[name][i], torch.full_like(found[name][i], wanted))


def test_the_filter_in_the_middle_goes_first_however_large() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([10.0, 20.0, 29.0]).view(3, 1, 1, 1))
    whole = Mask.dense(model, ["0.weight"])
    left = cut(model, whole, criterion("fpgm"), keep=2 / 3, granularity=granularity("filter"))
    assert left["0.weight"].flatten().tolist() == [True, False, True]
