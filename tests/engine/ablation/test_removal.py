"""Other kinds of removal beside hooks that write the same, and beside weights that are zero."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ablation_nets import SHAPE, Plain, Scalars, Shared
from eager_ablation import Read, eager
from hypothesis import given
from hypothesis import strategies as st
from test_ablation_replay import assert_close, assert_same_bits, bits, every_net, network, pictures
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.means import channel_means
from prunescope.engine.ablation.removal import Removal, Resample, Weights, Zero
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.worlds import Worlds

IMAGES = 4


def both_ways(stage: Stage, layer: str, count: int, base: Any, removal: Removal) -> Tensor:
    """A grid of all channels, which single pairs must equal."""
    found = stage.replay(layer, Worlds.grid(torch.arange(count), IMAGES), base, removal=removal)
    channel, image = torch.tensor([[0, 2], [0, 3], [count - 1, 0]]).t()
    pairs = stage.replay(layer, Worlds.pairs(channel, image, IMAGES), base, removal=removal)
    assert_close(pairs, found[channel * IMAGES + image])
    return found


@every_net
def test_a_mean_equals_hooks_that_write_it(kind: Any) -> None:
    model, x = network(kind, torch.float64), pictures(IMAGES, torch.float64)
    others = pictures(7, torch.float64) * 2 + 1
    stage = Stage(capture(model, SHAPE))
    means = channel_means(stage, [others[:3], others[3:]])
    seen = _values_of(model, others)

    def mean(read: Read, first: int, block: Tensor) -> Tensor:
        numbers = seen[read].narrow(read.axis, first, read.width).movedim(read.axis, -1).flatten(0, -2).mean(0)
        return numbers.expand_as(block.movedim(read.axis, -1)).movedim(-1, read.axis)

    base = stage.run(x)
    before = bits(base)
    for layer, count in kind.units.items():
        found = both_ways(stage, layer, count, base, means)
        expected = [eager(model, x, {layer: [channel]}, mean) for channel in range(count)]
        assert_close(found, torch.cat(expected))
    assert_same_bits(before, base)


def _values_of(model: nn.Module, images: Tensor) -> dict[Read, Tensor]:
    """What is read at every place."""
    seen: dict[Read, Tensor] = {}

    def look(read: nn.Module, _: object, value: Tensor) -> None:
        assert isinstance(read, Read)
        seen[read] = value.clone()

    handles = [part.register_forward_hook(look) for part in model.modules() if isinstance(part, Read)]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return seen


@every_net
def test_resampling_equals_hooks_that_shuffle(kind: Any) -> None:
    model, x = network(kind, torch.float64), pictures(IMAGES, torch.float64)
    stage = Stage(capture(model, SHAPE))
    base = stage.run(x)
    before = bits(base)
    removal = Resample.seeded(IMAGES, 3, "here")

    seen = _values_of(model, x)

    def shuffled(read: Read, first: int, block: Tensor) -> Tensor:
        return seen[read].narrow(read.axis, first, read.width)[removal.partner]

    for layer, count in kind.units.items():
        found = both_ways(stage, layer, count, base, removal)
        expected = [eager(model, x, {layer: [channel]}, shuffled) for channel in range(count)]
        assert_close(found, torch.cat(expected))
    assert_same_bits(before, base)


@every_net
@pytest.mark.parametrize("fold", [True, False])
def test_weights_removal_equals_zero_weights(kind: Any, fold: bool) -> None:
    model, x = network(kind, torch.float64), pictures(IMAGES, torch.float64)
    stage = Stage(capture(model, SHAPE, fold=fold))
    base = stage.run(x)
    before = bits(base)
    for layer, count in kind.units.items():
        found = both_ways(stage, layer, count, base, Weights())
        for channel in range(count):
            assert_close(found[channel * IMAGES : (channel + 1) * IMAGES], _without_weights(model, x, layer, channel))
    assert_same_bits(before, base)


def _without_weights(model: nn.Module, x: Tensor, layer: str, channel: int) -> Tensor:
    part = model.get_submodule(layer)
    kept = {name: value.clone() for name, value in part.state_dict().items()}
    with torch.no_grad():
        for parameter in part.parameters():
            parameter[channel] = 0
        out = model(x)
    part.load_state_dict(kept)
    return out


@pytest.mark.parametrize(("kind", "layer"), [(Plain, "one"), (Scalars, "one"), (Shared, "again")])
def test_what_leaks_is_what_tells_removals_apart(kind: Any, layer: str) -> None:
    model, x = network(kind), pictures(IMAGES)
    stage = Stage(capture(model, SHAPE))
    base = stage.run(x)
    worlds = Worlds.grid(torch.arange(kind.units[layer]), IMAGES)
    said = [
        stage.replay(layer, worlds, base, removal=removal)
        for removal in (Zero(), Weights(), channel_means(stage, [x]), Resample.seeded(IMAGES, 0))
    ]
    for i, one in enumerate(said):
        for other in said[:i]:
            assert float((one - other).abs().max()) > 1e-4


@given(images=st.integers(2, 40), seed=st.integers(0, 999))
def test_nobody_is_their_own_partner(images: int, seed: int) -> None:
    partner = Resample.seeded(images, seed).partner
    assert sorted(partner.tolist()) == list(range(images))
    assert not (partner == torch.arange(images)).any()
    assert torch.equal(partner, Resample.seeded(images, seed).partner)


def test_partners_depend_on_the_seed_and_on_what_they_are_for() -> None:
    drawn = {tuple(Resample.seeded(30, seed, label).partner.tolist()) for seed in (0, 1) for label in ("a", "b")}
    assert len(drawn) == 4


def test_means_do_not_depend_on_how_images_are_batched() -> None:
    stage, x = Stage(capture(network(Plain, torch.float64), SHAPE)), pictures(6, torch.float64)
    one, other = channel_means(stage, [x]), channel_means(stage, [x[:1], x[1:4], x[4:]])
    assert one.of.keys() == other.of.keys()
    for name, mean in one.of.items():
        assert_close(mean, other.of[name])


def test_what_cannot_be_drawn_or_averaged_is_refused() -> None:
    stage = Stage(capture(network(Plain), SHAPE))
    with pytest.raises(PrunescopeError, match="2 images"):
        Resample.seeded(1, 0)
    with pytest.raises(PrunescopeError, match="no image"):
        channel_means(stage, [])
    base = stage.run(pictures(3))
    with pytest.raises(PrunescopeError, match="4 images, the chunk has 3"):
        stage.replay("one", Worlds.grid(torch.tensor([0]), 3), base, removal=Resample.seeded(4, 0))
