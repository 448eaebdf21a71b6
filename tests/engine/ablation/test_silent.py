"""Channels that hold nothing but zeros are not taken out, and the answers are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunescope.data.split import Split
from prunescope.engine.ablation import silent
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.ablation.replay import Stage

IMAGES = 20


def half_dead() -> nn.Module:
    """Channels 0, 2, 4 never fire; channel 1 only where an image is bright."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 4),
    ).eval()  # fmt: skip
    first = model[0]
    assert isinstance(first, nn.Conv2d)
    assert first.bias is not None
    with torch.no_grad():
        first.bias[::2] = -100.0
        first.weight[1] = 0.1
        first.bias[1] = -1.4
        model[6].weight.mul_(20)  # type: ignore[operator, union-attr]
    return model


def images() -> Split:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (IMAGES, 3, 8, 8), generator=generator, dtype=torch.uint8)
    pixels[::2] //= 4
    return Split(pixels, torch.arange(IMAGES) % 4, [str(i) for i in range(IMAGES)], ("a", "b", "c", "d"))


def by_hooks(model: nn.Module, split: Split, layer: int, channel: int) -> Tensor:
    def zero(_module: nn.Module, _given: Any, out: Tensor) -> Tensor:
        out = out.clone()
        out[:, channel] = 0
        return out

    handle = model[layer].register_forward_hook(zero)  # type: ignore[index, operator]
    with torch.no_grad():
        said = torch.cat([model(x).argmax(1) for _, x, _ in split.batches(8)])
    handle.remove()
    return said


@pytest.mark.parametrize("effort", [Effort(), Effort("bf16"), Effort(screen=True)], ids=["32", "bf16", "screen"])
def test_predictions_are_those_of_hooks_and_silent_worlds_are_not_run(
    effort: Effort, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = half_dead(), images()
    asked: list[tuple[int, int]] = []
    plain = Stage.replay

    def replay(self: Stage, layer: str, worlds: Any, *more: Any, **options: Any) -> Tensor:
        asked.extend(zip(worlds.channel.tolist(), worlds.image.tolist(), strict=True) if layer == "0" else ())
        return plain(self, layer, worlds, *more, **options)

    monkeypatch.setattr(Stage, "replay", replay)
    found = Ablator(model, split, effort=effort).run(["0", "2"])
    for layer, after in (("0", 1), ("2", 3)):
        for row, channel in zip(range(*found.rows(layer).indices(99)), found.layers[layer].tolist(), strict=True):
            assert torch.equal(found.predicted[row].long(), by_hooks(model, split, after, channel)), (layer, channel)
    assert {channel for channel, _ in asked} <= {1, 3, 5}
    assert 0 < len({image for channel, image in asked if channel == 1}) < IMAGES


def test_which_channels_are_silent() -> None:
    model, split = half_dead(), images()
    ablator = Ablator(model, split, batch_size=IMAGES)
    ((_, x, _),) = split.batches(IMAGES)
    chunk = ablator.exact.look_at(x)
    found = silent.silent(ablator.exact.stage, chunk, "0", torch.arange(6))
    with torch.no_grad():
        content = model[:2](x)  # type: ignore[index]
    assert torch.equal(found, (content == 0).flatten(2).all(2).t())
    assert found[::2].all()
    assert 0 < int(found[1].sum()) < IMAGES


def test_silent_worlds_are_not_run_whatever_the_image() -> None:
    model, split = half_dead(), images()
    ablator = Ablator(model, split, batch_size=IMAGES)
    ((_, x, _),) = split.batches(IMAGES)
    stage, chunk = ablator.exact.stage, ablator.exact.look_at(x)
    none_run = silent.audible(stage, chunk, "0", torch.tensor([0, 2]), None)
    assert none_run is not None
    assert len(none_run) == 0
    assert silent.audible(stage, chunk, "0", torch.tensor([3, 5]), None) is None
    pairs = silent.audible(stage, chunk, "0", torch.tensor([0, 3, 3]), torch.tensor([4, 1, 2]))
    assert pairs is not None
    assert pairs.tolist() == [1, 2]


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_layer_that_never_fires_is_not_run_at_all(precision: Any) -> None:
    model, split = half_dead(), images()
    model[0].bias.data.fill_(-100.0)  # type: ignore[index, union-attr]
    found = Ablator(model, split, effort=Effort(precision)).run(["0"])
    assert bool((found.predicted == found.dense).all())
    assert found.drop.abs().max() == 0
