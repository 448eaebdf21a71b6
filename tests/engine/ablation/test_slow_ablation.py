"""Ablation by hooks beside replays, where no channels are coupled, and beside coupled channels zeroed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ablation_nets import SHAPE, Dense, FlatHead, Flattened, Plain, Residual, conv
from eager_ablation import Read, eager
from test_ablation_replay import assert_close, network, pictures
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.nodes import Untraceable
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.slow import HookedNetwork
from prunescope.engine.ablation.worlds import Worlds
from random_nets import lively


@pytest.mark.parametrize("kind", [Plain, Dense, FlatHead, Flattened])
def test_without_coupled_channels_it_equals_replays(kind: Any) -> None:
    model, x = network(kind, torch.float64), pictures(dtype=torch.float64)
    slow, stage = HookedNetwork(model, SHAPE), Stage(capture(model, SHAPE))
    assert slow.channels == stage.channels == kind.units
    base = stage.run(x)
    assert_close(slow.logits(x), stage.logits(base))
    for layer, count in kind.units.items():
        grid = Worlds.grid(torch.arange(count), 3)
        assert_close(slow.replay(layer, grid, x), stage.replay(layer, grid, base))
        pairs = Worlds.pairs(torch.tensor([0, 0, count - 1]), torch.tensor([2, 0, 1]), 3)
        assert_close(slow.replay(layer, pairs, x), stage.replay(layer, pairs, base))


def test_a_residual_channel_goes_as_a_whole() -> None:
    model, x = network(Residual, torch.float64), pictures(dtype=torch.float64)
    slow = HookedNetwork(model, SHAPE)
    assert slow.channels == Residual.units
    for channel in range(4):
        worlds = Worlds.grid(torch.tensor([channel]), 3)
        handles = [
            model.get_submodule(name).register_forward_pre_hook(
                lambda _, given: (given[0].index_fill(1, torch.tensor(channel), 0),)  # noqa: B023 (called at once)
            )
            for name in ("one", "three", "short")
        ]
        with torch.no_grad():
            expected = model(x)
        for handle in handles:
            handle.remove()
        for layer in ("stem", "two"):
            assert_close(slow.replay(layer, worlds, x), expected)
    one = Worlds.grid(torch.arange(5), 3)
    assert_close(slow.replay("one", one, x), torch.cat([eager(model, x, {"one": [c]}) for c in range(5)]))


class Branching(nn.Module):
    """Control flow on values, which torch.fx cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = conv(3, 4), conv(4, 5), nn.Linear(5, 3)
        self.a, self.b = Read({"one": 0}), Read({"two": 0})

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 1e9:
            x = -x
        x = F.relu(self.one(x))
        if len(x) > 0:
            x = F.max_pool2d(x, 2)
        return self.head(self.b(F.relu(self.two(self.a(x)))).mean((2, 3)))


def branching() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return lively(Branching()).double()


def test_a_network_that_cannot_be_traced() -> None:
    model, x = branching(), pictures(dtype=torch.float64)
    with pytest.raises(Untraceable, match=r"torch\.fx cannot follow Branching"):
        capture(model, SHAPE)
    slow = HookedNetwork(model, SHAPE)
    for layer, count in {"one": 4, "two": 5}.items():
        assert slow.channels[layer] == count
        found = slow.replay(layer, Worlds.grid(torch.arange(count), 3), x)
        assert_close(found, torch.cat([eager(model, x, {layer: [channel]}) for channel in range(count)]))


def test_the_callers_network_is_left_alone() -> None:
    model, x = branching().train(), pictures(dtype=torch.float64)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    HookedNetwork(model, SHAPE).replay("one", Worlds.grid(torch.arange(4), 3), x)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(part.training and not part._forward_pre_hooks for part in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


class Tied(nn.Module):
    """Two modules with one weight, so that a unit is read by the second under the first one's name."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.head = conv(3, 4), conv(4, 4), conv(4, 4), nn.Linear(4, 3)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head((self.one(x) * self.two(x * 2)).mean((2, 3)))


class ByFunction(Tied):
    """A layer's weight is used, its module is not called."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.conv2d(x, self.one.weight, self.one.bias, padding=1).mean((2, 3)))


def test_all_modules_with_a_tied_weight_are_readers() -> None:
    torch.manual_seed(0)
    model, x = lively(Tied()).double(), pictures(dtype=torch.float64)
    slow, stage = HookedNetwork(model, SHAPE), Stage(capture(model, SHAPE))
    grid = Worlds.grid(torch.arange(4), 3)
    assert_close(slow.replay("stem", grid, x), stage.replay("stem", grid, stage.run(x)))


def test_what_cannot_be_taken_out_is_refused() -> None:
    x, grid = pictures(), Worlds.grid(torch.tensor([0]), 3)
    model = network(Plain)
    with pytest.raises(PrunescopeError, match="did you mean 'one'"):
        HookedNetwork(model, SHAPE).replay("on", grid, x)
    with pytest.raises(PrunescopeError, match="does not run"):
        HookedNetwork(model, (4, 8, 8))
    with pytest.raises(PrunescopeError, match="one reads channel 0 of stem, but its module is not called"):
        HookedNetwork(ByFunction(), SHAPE).replay("stem", grid, x)


class HalfFixed(nn.Module):
    """The first two channels are read in a way that cannot be followed."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = conv(3, 2), conv(3, 2), conv(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        both = torch.cat([one, self.two(x)], 1)
        return self.head((self.three(both) * one.softmax(1).mean(1, keepdim=True)).mean((2, 3)))


def test_a_channel_that_is_no_unit_is_refused() -> None:
    slow, x = HookedNetwork(HalfFixed(), SHAPE), pictures()
    assert set(slow.channels) & {"one", "two"} == {"two"}
    slow.replay("two", Worlds.grid(torch.arange(2), 3), x)
    with pytest.raises(PrunescopeError, match="unknown layer with units 'one'"):
        slow.replay("one", Worlds.grid(torch.tensor([0]), 3), x)
