"""Prune and regrow against loops written from the papers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.seeds import torch_generator
from prunescope.pruning.regrow import Regrow, exchanged


def rigl(weights: list[float], gradients: list[float], kept: list[bool], fraction: float) -> list[bool]:
    """Algorithm 1 of Evci et al. 2020, one layer, one update; among equals the first in position is the larger."""
    active = {i for i, alive in enumerate(kept) if alive}
    k = math.floor(fraction * len(active))
    drop = set(sorted(active, key=lambda i: (abs(weights[i]), -i))[:k])  # ArgTopK(-|theta|, k)
    outside = set(range(len(kept))) - (active - drop)  # i not in theta \ I_drop
    grow = set(sorted(outside, key=lambda i: (-abs(gradients[i]), i))[:k])  # ArgTopK(|gradient|, k)
    return [i in (active - drop) | grow for i in range(len(kept))]


def layers(seed: int, density: float, ties: bool = False) -> tuple[Mask, dict[str, Tensor], dict[str, Tensor]]:
    generator = torch_generator(seed, "layers")
    shapes = {"a": (5, 3, 2, 2), "b": (7, 4), "c": (6,)}
    mask = Mask({name: torch.rand(shape, generator=generator) < density for name, shape in shapes.items()})
    draw = (lambda shape: torch.randint(-2, 3, shape, generator=generator).float()) if ties else (
        lambda shape: torch.randn(shape, generator=generator))  # fmt: skip
    weights = {name: draw(kept.shape) * kept for name, kept in mask.items()}
    return mask, weights, {name: draw(kept.shape) for name, kept in mask.items()}


@given(st.integers(0, 500), st.floats(0, 1), st.floats(0, 1), st.booleans())
@settings(max_examples=80, deadline=None)
def test_an_exchange_is_rigls(seed: int, density: float, fraction: float, ties: bool) -> None:
    mask, weights, gradients = layers(seed, density, ties)
    found = exchanged(mask, weights, {name: g.abs() for name, g in gradients.items()}, fraction)
    for name, kept in mask.items():
        flat = [x.flatten().tolist() for x in (weights[name], gradients[name], kept)]
        assert found[name].flatten().tolist() == rigl(*flat, fraction)
        assert int(found[name].sum()) == int(kept.sum())


@pytest.mark.parametrize(
    ("t", "f"), [(0, 0.3), (25, 0.15 * (1 + math.sqrt(0.5))), (50, 0.15), (99, 0.000074), (100, 0)]
)
def test_the_share_falls_as_in_rigl(t: int, f: float) -> None:
    assert Regrow(share=0.3).share_at(t / 100) == pytest.approx(f, rel=1e-2, abs=1e-12)


def test_without_decay_the_share_stays_and_the_last_step_exchanges_nothing() -> None:
    regrow = Regrow(by="random", share=0.3, decay="none", every="1ep", until="100%")
    assert [regrow.share_at(done) for done in (0.1, 0.5, 0.99, 1.0)] == [0.3, 0.3, 0.3, 0.0]


def test_what_comes_comes_by_gradient_or_by_chance() -> None:
    net = nn.Linear(40, 10)
    mask = Mask({"weight": torch.zeros(10, 40, dtype=torch.bool)})
    parameters: dict[str, Any] = dict(net.named_parameters())
    assert not Regrow().merit(parameters, mask, torch_generator(0))["weight"].any()  # frozen: no gradient
    net(torch.ones(1, 40)).square().sum().backward()
    assert torch.equal(Regrow().merit(parameters, mask, torch_generator(0))["weight"], net.weight.grad.abs())
    first, again, other = (
        Regrow(by="random").merit(parameters, mask, torch_generator(seed))["weight"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 0.4 < first.mean() < 0.6


def test_random_weights_come_evenly() -> None:
    mask, weights = Mask({"w": torch.arange(20) < 10}), {"w": (torch.arange(20) < 10) * torch.arange(1.0, 21.0)}
    came = torch.zeros(20)
    for seed in range(600):
        merit = Regrow(by="random").merit({}, mask, torch_generator(seed))
        came += exchanged(mask, weights, merit, 0.5)["w"]
    assert torch.equal(came[5:10], torch.full((5,), 600.0))  # the largest five always stay
    # The other five come from fifteen: Binomial(600, 1/3) has a standard deviation of 11.5.
    assert float((torch.cat([came[:5], came[10:]]) - 200).abs().max()) < 5 * 11.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "gradients"}, "unknown way to regrow 'gradients'; did you mean 'gradient'"),
        ({"decay": "cosin"}, "did you mean 'cosine'"),
        ({"share": 0.0}, r"share .* \(0, 1\), got 0.0"),
        ({"share": 1.0}, "got 1.0"),
        ({"every": "0it"}, "every must be above 0"),
        ({"until": "0ep"}, "there is no step"),
        ({"until": "120%"}, "behind the end"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        Regrow(**options)
