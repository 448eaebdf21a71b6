"""Masks that keep channels out of one layer: the masked network says what the network without the channels says."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_greedy import READS, images, logits_without, net
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.engine.untouched import fixed_rng
from prunescope.engine.without import predictions
from prunescope.pruning.greedy import Until, greedy
from prunescope.pruning.kept_out import removal_mask
from random_nets import lively


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(list(READS)), st.sets(st.integers(0, 2), max_size=2)), st.integers(0, 99))
def test_the_masked_network_is_the_network_without_the_channels(gone: dict[str, set[int]], seed: int) -> None:
    model, split = net(seed), images(8, seed)
    wanted = logits_without(model, split, {layer: sorted(channels) for layer, channels in gone.items()})
    mask = removal_mask(model, {layer: sorted(channels) for layer, channels in gone.items()}, (3, 6, 6))
    masked = copy.deepcopy(model)
    mask.apply_(masked)
    with torch.no_grad():
        torch.testing.assert_close(masked(split.normalisation(split.images)).double(), wanted)
    own = {f"{layer}.{part}" for layer in gone for part in ("weight", "bias")} - {"two.bias"}
    norms = {f"norm{n}.{part}" for n, layer in ((1, "one"), (2, "two")) if layer in gone for part in ("weight", "bias")}
    assert set(mask) == own | norms


class Branches(nn.Module):
    """One norm over two branches side by side, one of which is there twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 3, 1)
        self.norm, self.head = nn.BatchNorm2d(7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        left = self.left(x)
        return self.head(F.gelu(self.norm(torch.cat([left, self.right(x), F.relu(left)], 1))).mean((2, 3)))


def test_norms_over_branches_lose_the_right_channels() -> None:
    with fixed_rng():
        torch.manual_seed(0)
        model, split = lively(Branches()), images(40)
    gone = {"left": [1], "right": [0, 2]}
    mask = removal_mask(model, gone, (3, 6, 6))
    assert mask["norm.weight"].tolist() == mask["norm.bias"].tolist() == [True, False, False, True, False, True, False]
    said = predictions(Ablator(model, split), split, [gone])[0]
    mask.apply_(model)
    with torch.no_grad():
        assert model(split.normalisation(split.images)).argmax(1).tolist() == said.tolist()


def test_what_makes_zero_another_number_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(PrunescopeError, match=r"channels of '0' out: .* another number \(_1\)"):
        removal_mask(model, {"0": [1]}, (3, 6, 6))
    with pytest.raises(PrunescopeError, match="unknown layer"):
        removal_mask(model, {"1": [1]}, (3, 6, 6))


def test_training_under_it_keeps_channels_out_and_greedy_goes_on_from_there() -> None:
    model, split = net(1), images(48, 1)
    training = Training(epochs=1, batch_size=16, lr=0.05, precision="32")

    def tune(network: nn.Module, gone: object) -> None:
        fit(network, split, training, seed=0, mask=removal_mask(network, gone, split.shape), device="cpu")  # type: ignore[arg-type]

    before = copy.deepcopy(model.state_dict())
    found = greedy(model, split, layers=["one"], fine_tune=tune, until=Until(steps=2))
    gone = [channel for _, channel in found.order]
    assert not torch.equal(before["two.weight"], model.state_dict()["two.weight"])
    assert not bool(model.one.weight[gone].any())
    model.eval()
    with torch.no_grad():
        said = model(split.normalisation(split.images)).argmax(1)
    assert found.steps[-1].accuracy == pytest.approx(float((said == split.labels).double().mean()))
