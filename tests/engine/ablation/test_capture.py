"""What is captured computes what the network does; what cannot be, says why; the caller's network stays as it is."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ablation_nets import SHAPE, Frames, InPlace, Plain, conv
from test_ablation_replay import assert_close, network, pictures
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.nodes import Untraceable, run
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.scene import Unfollowed
from prunescope.engine.ablation.worlds import Worlds
from random_nets import lively


class Flow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class Squares(nn.Module):
    """As many rows as images, squared."""

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[0]
        return x.mean((2, 3)).repeat(n, 1)[: n * n : n]


class MixesImages(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)).amax((2, 3))


class StatisticsOfTheBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).amax((2, 3))


class ReadsWhatItWroteOver(nn.Module):
    """The shortcut is the ReLU of the maps, as the in-place ReLU wrote over them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.relu = conv(3, 4), conv(4, 4), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return (self.two(self.relu(x)) + x).mean((2, 3))


class WritesIntoAView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 2.0
        x[:, 0].mul_(3.0)
        return x.mean((2, 3))


class WritesItems(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x * 2.0
        x[:, 0] = 0.0
        return x.mean((2, 3))


class Fills(nn.Module):
    """An in-place method that has no twin which works on a copy."""

    def forward(self, x: Tensor) -> Tensor:
        return (x * 2.0).uniform_().mean((2, 3))


class AlwaysDrops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5).mean((2, 3))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Flow(), "torch.fx cannot follow Flow: symbolically traced variables cannot be used as inputs to control flow"),
        (Squares(), "depends on the number of images|depends on the images beside it|does not run"),
        (MixesImages(), "what the network says of an image depends on the images beside it"),
        (StatisticsOfTheBatch(), "depends on the images beside it"),
        (ReadsWhatItWroteOver(), "it writes over values it reads again"),
        (WritesIntoAView(), "it writes over values it reads again"),
        (WritesItems(), "torch.fx cannot follow WritesItems: 'Proxy' object does not support item assignment"),
        (Fills(), "uniform_ changes a tensor in place, and nothing does the same on a copy"),
        (AlwaysDrops(), "operation by operation the network gives other outputs"),
        (nn.Conv2d(4, 2, 3), "does not run on images of shape .3, 8, 8.: Given groups=1"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_cannot_be_captured_says_why(model: nn.Module, reason: str) -> None:
    with pytest.raises(Untraceable, match=reason):
        capture(lively(model), SHAPE)


def test_a_network_that_cannot_be_copied_says_so() -> None:
    model = network(Plain)
    model.kept = [model.one.weight * 2]  # type: ignore[assignment]  # a result with a graph
    with pytest.raises(Untraceable, match="Plain cannot be copied: Only Tensors created explicitly"):
        capture(model, SHAPE)


@pytest.mark.parametrize("kind", [Plain, InPlace])
def test_the_callers_network_is_left_alone(kind: Any) -> None:
    model = network(kind).train()
    calls: list[int] = []
    handle = model.register_forward_hook(lambda module, given, out: calls.append(len(out)))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = {name: dict(part._forward_hooks) for name, part in model.named_modules()}
    inplace = [getattr(part, "inplace", None) for part in model.modules()]
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    Stage(capture(model, SHAPE))
    assert torch.equal(drawn[0], torch.get_rng_state())
    assert drawn[1:] == (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())
    assert hooks == {name: dict(part._forward_hooks) for name, part in model.named_modules()}
    assert inplace == [getattr(part, "inplace", None) for part in model.modules()]
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    handle.remove()


def test_the_random_state_is_left_alone_by_a_network_that_draws() -> None:
    state = torch.get_rng_state()
    with pytest.raises(Untraceable):
        capture(AlwaysDrops(), SHAPE)
    assert torch.equal(state, torch.get_rng_state())


def test_sizes_grow_with_the_number_of_images() -> None:
    class Sized(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            n, c = x.shape[0], x.shape[1]
            return x.reshape(n * c, -1).mean(1).view(n, c) + x.new_zeros(n, 1)

    traced = capture(Sized(), SHAPE)
    for count in (1, 4, 9):
        x = pictures(count)
        values = run(traced, x)
        assert_close(next(value for node, value in values.items() if node.op == "output"), x.mean((2, 3)))
        for node, value in values.items():
            if "size" in node.meta:
                assert node.meta["size"](count) == value, node


def test_what_only_takes_the_type_of_images_does_not_depend_on_them() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.head = conv(3, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x).flatten(2).transpose(1, 2)
            places = torch.linspace(0.0, 1.0, 64, dtype=x.dtype)[:, None]
            return self.head((x * places).mean(1))

    model, x = lively(Positions()), pictures()
    stage = Stage(capture(model, SHAPE))
    grid = Worlds.grid(torch.arange(4), 3)
    found = stage.replay("one", grid, stage.run(x))
    assert_close(found, stage.full("one", grid.channel, x[grid.image]))


def pruned(model: nn.Module) -> nn.Module:
    prune.random_unstructured(model.one, "weight", 0.5)
    prune.ln_structured(model.hidden, "weight", 0.5, 2, 0)
    return model


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def parametrised(model: nn.Module) -> nn.Module:
    parametrize.register_parametrization(model.one, "weight", Doubled())
    parametrize.register_parametrization(model.two, "weight", Doubled())
    return model


def hooked(model: nn.Module) -> nn.Module:
    model.one.register_forward_hook(lambda module, given, out: out * 1.5)
    model.two.register_forward_hook(lambda module, given, out: out + 1)
    model.norm.register_forward_pre_hook(lambda module, given: (given[0] * 0.5,))
    model.a.register_forward_hook(lambda module, given, out: out.flip(-1))
    return model


@pytest.mark.parametrize("change", [pruned, parametrised, hooked])
def test_hooks_and_parametrisations_are_part_of_the_network(change: Any) -> None:
    model, x = change(network(Plain)), pictures()
    stage = Stage(capture(model, SHAPE))
    base = stage.run(x)
    with torch.no_grad():
        assert_close(stage.logits(base), model(x))
    assert stage.channels == Plain.units
    for layer, count in Plain.units.items():
        grid = Worlds.grid(torch.arange(count), 3)
        assert_close(stage.replay(layer, grid, base), stage.full(layer, grid.channel, x[grid.image]))


def test_a_weight_that_is_read_elsewhere_is_not_folded() -> None:
    class Penalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm, self.head = conv(3, 4), nn.BatchNorm2d(4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.one(x)).mean((2, 3))) + self.one.weight.sum()

    model, x = lively(Penalised()), pictures()
    stage = Stage(capture(model, SHAPE))
    with torch.no_grad():
        assert_close(stage.logits(stage.run(x)), model(x))


def test_a_convolution_of_frames_is_not_followed_and_says_so() -> None:
    model, x = lively(Frames()), pictures()
    stage = Stage(capture(model, SHAPE))
    with torch.no_grad():
        assert_close(stage.logits(stage.run(x)), model(x))
    with pytest.raises(Unfollowed, match="no axis of images"):
        stage.replay("one", Worlds.grid(torch.arange(4), 3), stage.run(x))


def test_a_network_without_layers_has_no_units() -> None:
    class Means(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3))

    assert Stage(capture(Means(), SHAPE)).channels == {}
