"""Replays of many worlds beside hooks that zero one channel at a time, on networks that know their readers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ablation_nets import NETS, SHAPE
from eager_ablation import eager
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.worlds import Worlds
from random_nets import lively, networks

IMAGES = 3
CLOSE = {torch.float32: 1e-5, torch.float64: 1e-12}
every_net = pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)


def network(kind: type[nn.Module], dtype: torch.dtype = torch.float32) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return lively(kind()).to(dtype)


def pictures(count: int = IMAGES, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(2)).to(dtype)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert expected.isfinite().all()
    assert float((found - expected).abs().max()) <= CLOSE[expected.dtype] * float(expected.abs().max())


def bits(base: dict[fx.Node, Any]) -> dict[fx.Node, Any]:
    return {node: value.clone() if isinstance(value, Tensor) else value for node, value in base.items()}


def assert_same_bits(one: dict[fx.Node, Any], other: dict[fx.Node, Any]) -> None:
    for node, value in one.items():
        assert not isinstance(value, Tensor) or torch.equal(value, other[node]), node


@every_net
def test_the_units_are_those_of_the_layers_that_have_readers(kind: Any) -> None:
    assert Stage(capture(network(kind), SHAPE)).channels == kind.units


@every_net
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_grid_of_worlds_equals_hooks(kind: Any, dtype: torch.dtype, fold: bool, layout: torch.memory_format) -> None:
    model, x = network(kind, dtype), pictures(dtype=dtype)
    stage = Stage(capture(model, SHAPE, fold=fold))
    base = stage.run(x.contiguous(memory_format=layout))
    assert_close(stage.logits(base), eager(model, x, {}))
    before, changed = bits(base), 0.0
    for layer, count in kind.units.items():
        channels = torch.arange(count)
        found = stage.replay(layer, Worlds.grid(channels, IMAGES), base)
        expected = torch.cat([eager(model, x, {layer: [channel]}) for channel in range(count)])
        assert_close(found, expected)
        assert torch.equal(found, stage.replay(layer, Worlds.grid(channels, IMAGES), base))
        changed = max(changed, float((expected - stage.logits(base).repeat(count, 1)).abs().max()))
        one = stage.replay(layer, Worlds.grid(channels[-1:], IMAGES), base)
        assert_close(one, expected[-IMAGES:])
    assert_same_bits(before, base)
    assert changed > 1e-3  # the hooks do something


@every_net
@given(data=st.data())
@settings(max_examples=5, deadline=None, derandomize=True)
def test_any_pairs_of_channel_and_image_equal_hooks(kind: Any, data: st.DataObject) -> None:
    model, x = network(kind, torch.float64), pictures(dtype=torch.float64)
    stage = Stage(capture(model, SHAPE))
    base = stage.run(x)
    before, rests = bits(base), {}
    layer = data.draw(st.sampled_from(sorted(kind.units)))
    pair = st.tuples(st.integers(0, kind.units[layer] - 1), st.integers(0, IMAGES - 1))
    for _ in range(2):  # the second time with what was kept
        pairs = sorted(data.draw(st.lists(pair, min_size=1, max_size=9)))  # repeated ones too
        channel, image = torch.tensor(pairs).t()
        found = stage.replay(layer, Worlds.pairs(channel, image, IMAGES), base, rests)
        assert_close(found, torch.cat([eager(model, x, {layer: [c]})[i : i + 1] for c, i in pairs]))
        assert_close(stage.full(layer, channel, x[image]), found)
    assert_same_bits(before, base)


@every_net
def test_what_is_closed_is_gone_in_every_world(kind: Any) -> None:
    model, x = network(kind), pictures()
    stage = Stage(capture(model, SHAPE))
    gone = {layer: [count - 1, 0][: 1 + i % 2] for i, (layer, count) in enumerate(kind.units.items())}
    stage.close({layer: torch.tensor(channels) for layer, channels in gone.items()})
    base = stage.run(x)
    assert_close(stage.logits(base), eager(model, x, gone))
    for layer, count in kind.units.items():
        found = stage.replay(layer, Worlds.grid(torch.arange(count), IMAGES), base)
        for channel in range(count):
            expected = eager(model, x, {**gone, layer: [*gone[layer], channel]})
            assert_close(found[channel * IMAGES : (channel + 1) * IMAGES], expected)
    stage.close({})
    assert_close(stage.logits(stage.run(x)), eager(model, x, {}))


@given(model=networks(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_random_networks_equal_full_runs(model: nn.Module, seed: int) -> None:
    assert_replays_equal_full_runs(model.double(), SHAPE, seed)


def assert_replays_equal_full_runs(model: nn.Module, shape: tuple[int, ...], seed: int = 0, images: int = 2) -> None:
    """Two channels of every layer, as a grid and as pairs, beside runs of the whole network without folded norms.

    `full` itself is tested against hooks.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, *shape, generator=generator).to(next(model.parameters()))
    stage, plain = Stage(capture(model, shape)), Stage(capture(model, shape, fold=False))
    with torch.inference_mode():
        base = stage.run(x)
        before = bits(base)
        assert_close(stage.logits(base), model(x))
        for layer, count in stage.channels.items():
            channels = torch.randperm(count, generator=generator)[:2].sort().values
            grid = Worlds.grid(channels, images)
            expected = plain.full(layer, grid.channel, x[grid.image]).to(x.dtype)
            assert_close(stage.replay(layer, grid, base), expected)
            chosen = torch.arange(0, grid.count, images - 1)
            pairs = Worlds.pairs(grid.channel[chosen], grid.image[chosen], images)
            assert_close(stage.replay(layer, pairs, base), expected[chosen])
        assert_same_bits(before, base)
