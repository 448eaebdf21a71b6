"""Random scores are uniform, seeded, and the same whatever else was drawn."""

from __future__ import annotations

import torch
from scipy.stats import kstest
from torch import nn

from prunescope.core.mask import Mask
from prunescope.pruning.criteria.chance import Random
from prunescope.pruning.scoring import cut


def test_scores_are_uniform_and_do_not_repeat_between_tensors() -> None:
    mask = Mask({"a": torch.ones(50, 100, dtype=torch.bool), "b": torch.ones(50, 100, dtype=torch.bool)})
    scores = Random().score(nn.Identity(), mask, batches=None, seed=3)
    for score in scores.values():
        assert kstest(score.flatten().numpy(), "uniform").pvalue > 1e-4
    correlation = torch.corrcoef(torch.stack([score.flatten() for score in scores.values()]))[0, 1]
    assert abs(float(correlation)) < 5 / 5000**0.5


def test_a_global_random_cut_takes_its_share_of_every_layer() -> None:
    model = nn.Sequential(nn.Linear(100, 40), nn.Linear(40, 100))
    mask = cut(model, Mask.dense(model, ["0.weight", "1.weight"]), Random(), keep=0.3, seed=5)
    # Hypergeometric: half of 8000 weights, 2400 kept; standard deviation sqrt(2400/4 * 5600/7999) = 20.5.
    assert mask.kept == 2400
    assert abs(int(mask["0.weight"].sum()) - 1200) < 5 * 20.5


def test_the_global_random_state_plays_no_part() -> None:
    mask = Mask({"a": torch.ones(64, dtype=torch.bool)})
    first = Random().score(nn.Identity(), mask, batches=None, seed=0)["a"]
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(first, Random().score(nn.Identity(), mask, batches=None, seed=0)["a"])
    assert not torch.equal(first, Random().score(nn.Identity(), mask, batches=None, seed=1)["a"])
