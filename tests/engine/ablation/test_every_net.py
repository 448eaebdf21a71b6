"""`Ablator` on every hand-made network, and on transformers: each prediction is that of hooks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from ablation_nets import NETS, SHAPE, Volume
from eager_ablation import eager
from test_ablation_replay import network
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.data.split import Split
from prunescope.engine.ablation.ablate import Ablator, ablate
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.without import predictions
from random_nets import lively

IMAGES = 24


def images(shape: Sequence[int] = SHAPE, classes: int = 3) -> tuple[Split, Tensor]:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randint(0, 256, (IMAGES, *shape), generator=generator, dtype=torch.uint8)
    split = Split(pixels, torch.arange(IMAGES) % classes, np.arange(IMAGES).astype(str), tuple("abcdefg"[:classes]))
    return split, torch.cat([x for _, x, _ in split.batches(IMAGES)]).contiguous()


def centred(model: nn.Module, x: Tensor) -> nn.Module:
    """Let decisions hang on the image: every class is the largest about as often."""
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        logits = model(x)
        spread = logits.std(0).clamp(min=1e-6)
        head.bias -= logits.mean(0)
        head.weight /= spread[:, None]
        head.bias /= spread
    return model


@pytest.mark.parametrize("effort", [Effort(), Effort("bf16")], ids=["32", "bf16"])
@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_every_prediction_is_that_of_hooks(kind: Any, effort: Effort) -> None:
    split, x = images()
    model = centred(network(kind), x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrunescopeWarning)  # three-dimensional pooling knows no bfloat16
        found = Ablator(model, split, effort=effort, batch_size=9).run()
    with torch.no_grad():
        assert torch.equal(found.dense.long(), model(x).argmax(1))
    assert {name: len(channels) for name, channels in found.layers.items()} == kind.units
    for layer, count in kind.units.items():
        expected = torch.stack([eager(model, x, {layer: [channel]}).argmax(1) for channel in range(count)])
        assert torch.equal(found.predicted[found.rows(layer)].long(), expected), layer


@pytest.mark.parametrize("kind", NETS, ids=lambda kind: kind.__name__)
def test_sets_are_those_of_hooks(kind: Any) -> None:
    split, x = images()
    model = centred(network(kind), x)
    sets: list[dict[str, list[int]]] = [{}, *({layer: [0, count - 1]} for layer, count in kind.units.items())]
    sets.append({layer: [count - 1] for layer, count in kind.units.items()})
    found = predictions(Ablator(model, split, batch_size=9), split, sets)
    for said, units in zip(found, sets, strict=True):
        assert torch.equal(said.long(), eager(model, x, units).argmax(1)), units


def without(model: nn.Module, place: str, index: slice, x: Tensor) -> Tensor:
    """Decisions with zeros at the input of a module, on the last axis."""

    def zero(_module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        value = given[0].clone()
        value[..., index] = 0
        return (value, *given[1:])

    handle = model.get_submodule(place).register_forward_pre_hook(zero)
    try:
        with torch.no_grad():
            return model(x).argmax(1)
    finally:
        handle.remove()


@pytest.mark.parametrize("effort", [Effort(), Effort("bf16")], ids=["32", "bf16"])
def test_neurons_and_heads_of_a_transformer(effort: Effort) -> None:
    split, x = images((3, 16, 16), classes=5)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        library = torchvision_module("torchvision.models")
        model = lively(library.VisionTransformer(16, 8, 2, 3, 24, 30, num_classes=5)).eval()
    centred(model, x)
    block = "encoder.layers.encoder_layer_1"
    found = ablate(model, split, effort=effort, layers=[f"{block}.mlp.0", f"{block}.self_attention"])
    for neuron, said in enumerate(found.predicted[found.rows(f"{block}.mlp.0")]):
        assert torch.equal(said.long(), without(model, f"{block}.mlp.3", slice(neuron, neuron + 1), x)), neuron
    heads = found.predicted[found.rows(f"{block}.self_attention")]
    assert len(heads) == 3
    attention = model.get_submodule(f"{block}.self_attention")
    for head, said in enumerate(heads):
        kept = attention.out_proj.weight.data.clone()  # type: ignore[union-attr, operator]
        attention.out_proj.weight.data[:, head * 8 : head * 8 + 8] = 0  # type: ignore[union-attr, index]
        with torch.no_grad():
            assert torch.equal(said.long(), model(x).argmax(1)), head
        attention.out_proj.weight.data.copy_(kept)  # type: ignore[union-attr, operator]
    assert (found.predicted != found.dense).any(1).float().mean() > 0.3  # the question is not idle


class Burst(nn.Module):
    """One over the sum of three channels, the third of which is what keeps it from zero."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.head = nn.Conv2d(3, 3, 1), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x)).mean((2, 3))
        return self.head(x[:, :2] / x[:, 2:])


def test_a_unit_without_which_nothing_is_finite_is_named() -> None:
    split, _ = images()
    model = Burst().eval()
    with torch.no_grad():
        model.one.bias.fill_(3.0)
    with pytest.raises(PrunescopeError, match=r"without channel 2 of one the logits are not finite, first for .* '0'"):
        ablate(model, split)


def test_what_knows_no_bfloat16_is_decided_in_float32_with_a_warning() -> None:
    split, x = images()
    model = centred(network(Volume), x)
    with pytest.warns(PrunescopeWarning, match="does not run in bfloat16, so float32 decides everything"):
        low = ablate(model, split, effort=Effort("bf16"))
    assert low.screened == 0
    assert torch.equal(low.predicted, ablate(model, split).predicted)
