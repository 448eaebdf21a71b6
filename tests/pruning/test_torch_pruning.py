"""Scores of channels beside Torch-Pruning's importances, on a network with a residual sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn
from torch_pruning.pruner.importance import ActivationImportance, FPGMImportance

from prunescope.engine.untouched import fixed_rng, untouched
from prunescope.pruning.granularity import granularity
from prunescope.pruning.scoring import criterion, cut
from prunescope.pruning.turn import whole_mask

WEIGHTED = [nn.Conv2d, nn.Linear]  # Torch-Pruning would count norms as well


class Residual(nn.Module):
    """The channels of `left` and `right` are tied by their sum; those of `stem` and `last` are free."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.left, self.norm1 = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.right, self.norm2 = nn.Conv2d(6, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.last, self.norm3 = nn.Conv2d(8, 6, 3), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 8, 8) -> (B, 3)."""
        x = F.relu(self.norm0(self.stem(x)))
        x = F.relu(self.norm1(self.left(x)) + self.norm2(self.right(x)))
        return self.head(F.relu(self.norm3(self.last(x))).mean((2, 3)))


LAYERS = ["stem", "left", "last"]
FREE = ["stem", "last"]


@pytest.fixture
def model() -> Residual:
    with fixed_rng():
        torch.manual_seed(0)
        made = Residual()
        for norm in (made.norm0, made.norm1, made.norm2, made.norm3):
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)
    return made.eval()


def batch(count: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(count) % 3


def theirs(model: nn.Module, layer: str, importance: Any) -> Tensor:
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=batch(1)[0])
    root = model.get_submodule(layer)
    scores = importance(graph.get_pruning_group(root, tp.prune_conv_out_channels, idxs=list(range(len(root.weight)))))
    assert isinstance(scores, Tensor)
    return scores.double()


def ours(
    model: nn.Module, layer: str, name: str, *, members: str, reduce: str = "sum", count: int = 8, **options: Any
) -> Tensor:
    units = granularity("channel", members=members, reduce=reduce).fitted(model, (3, 8, 8))
    mask = whole_mask(model, units)
    with untouched(model):
        scores = criterion(name, **options).score(
            model, units.scored(mask), batches=lambda: iter([batch(count)]), seed=0
        )
    return units._reduced(scores, mask)[units.bound.graph.axes[f"{layer}.weight"][0]]


def with_gradients(model: nn.Module, count: int = 8) -> nn.Module:
    x, y = batch(count)
    model.zero_grad()
    F.cross_entropy(model(x), y).backward()
    return model


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("layer", LAYERS)
def test_magnitude_of_everything_that_hangs_on_a_channel(model: Residual, layer: str, p: int) -> None:
    peer = tp.importance.GroupMagnitudeImportance(p=p, group_reduction="sum", normalizer=None, target_types=WEIGHTED)
    torch.testing.assert_close(
        ours(model, layer, "magnitude", members="both", p=p), theirs(model, layer, peer), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("layer", FREE)
def test_magnitude_of_filters(model: Residual, layer: str, p: int) -> None:
    peer = tp.importance.GroupMagnitudeImportance(p=p, group_reduction="first", normalizer=None)
    torch.testing.assert_close(
        ours(model, layer, "magnitude", members="incoming", p=p), theirs(model, layer, peer), rtol=1e-6, atol=0
    )


def test_the_same_channels_go(model: Residual) -> None:
    """Through Torch-Pruning's own pruner, half of each layer."""
    peer = tp.pruner.BasePruner(
        model, batch(1)[0], tp.importance.GroupMagnitudeImportance(p=1, group_reduction="sum", target_types=WEIGHTED),
        pruning_ratio=0.5, ignored_layers=[model.head],
    )  # fmt: skip
    gone = {}
    for group in peer.step(interactive=True):
        names = {id(module): name for name, module in model.named_modules()}
        gone[names[id(group[0].dep.target.module)]] = set(group[0].idxs)
    units = granularity("channel", members="both", reduce="sum").fitted(model, (3, 8, 8))
    mask = cut(model, whole_mask(model, units), criterion("magnitude"), keep=0.5, scope="layer", granularity=units)
    assert set(gone) in ({"stem", "left", "last"}, {"stem", "right", "last"})
    for layer, channels in gone.items():
        alive = mask[f"{layer}.weight"].flatten(1).any(1)
        assert set((~alive).nonzero().flatten().tolist()) == channels
        assert len(channels) == len(alive) // 2


def test_lamp_of_single_weights(model: Residual) -> None:
    """Theirs is of the scores of channels; the formula, applied to weights, is the paper's."""
    weight = model.left.weight.detach()
    mask = whole_mask(model, granularity("weight"))
    found = criterion("lamp").score(model, mask, batches=None, seed=0)["left.weight"]
    wanted = tp.importance.LAMPImportance()._lamp(weight.square().flatten()).view_as(weight)
    torch.testing.assert_close(found, wanted.double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("layer", LAYERS)
def test_scales_of_batch_norm(model: Residual, layer: str) -> None:
    """Theirs is the mean over a group's norms; ours over weights, of which `left` and `right` have equally many."""
    peer = tp.importance.BNScaleImportance(group_reduction="mean", normalizer=None)
    found = ours(model, layer, "bn-scale", members="incoming", reduce="mean")
    torch.testing.assert_close(found, theirs(model, layer, peer), rtol=1e-6, atol=0)


@pytest.mark.parametrize("layer", FREE)
def test_distances_of_filters(model: Residual, layer: str) -> None:
    """Theirs are distances of absolute values: the paper's where no weight is negative."""
    with torch.no_grad():
        for weight in (model.stem.weight, model.last.weight):
            weight.abs_()
    peer = FPGMImportance(p=1, group_reduction="first", normalizer=None)
    found = ours(model, layer, "fpgm", members="incoming", reduce="mean")
    torch.testing.assert_close(found, theirs(model, layer, peer), rtol=1e-5, atol=0)


@pytest.mark.parametrize("layer", LAYERS)
def test_snip_is_their_taylor_without_signs(model: Residual, layer: str) -> None:
    peer = tp.importance.GroupTaylorImportance(group_reduction="sum", normalizer=None, target_types=WEIGHTED)
    found = ours(model, layer, "snip", members="both")
    torch.testing.assert_close(found, theirs(with_gradients(model), layer, peer), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("layer", FREE)
def test_the_taylor_gate_is_their_multivariable_taylor_squared(model: Residual, layer: str) -> None:
    peer = tp.importance.GroupTaylorImportance(group_reduction="first", normalizer=None, multivariable=True)
    found = ours(model, layer, "taylor-gate", members="incoming", reduce="mean")
    torch.testing.assert_close(found, theirs(with_gradients(model), layer, peer) ** 2, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("layer", LAYERS)
def test_fisher_is_half_their_hessian(model: Residual, layer: str) -> None:
    """Of one image: of several, theirs keeps the last one's gradient only."""
    peer = tp.importance.GroupHessianImportance(group_reduction="sum", normalizer=None, target_types=WEIGHTED)
    peer.accumulate_grad(with_gradients(model, count=1))
    found = ours(model, layer, "fisher", members="both", count=1)
    torch.testing.assert_close(2 * found, theirs(model, layer, peer), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("layer", ["stem", "left"])
def test_mean_activations_are_those_that_the_next_layer_reads(model: Residual, layer: str) -> None:
    """Where it reads the ReLU: `last` is averaged over places before."""
    peer = ActivationImportance(group_reduction="mean", normalizer=None, target_types=WEIGHTED)
    with torch.no_grad(), peer.compute_importance(model):
        model(batch()[0])
    found = ours(model, layer, "activation", members="incoming", reduce="mean")
    torch.testing.assert_close(found, theirs(model, layer, peer), rtol=1e-5, atol=0)
