"""Every criterion at every granularity and scope: refused with a reason when read, or cut to the exact count."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.seeds import torch_generator
from prunescope.engine.untouched import fixed_rng
from prunescope.pruning.granularity import Granularity, granularities, granularity
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scope import SCOPES, Scope, layer_densities
from prunescope.pruning.scoring import criteria, criterion, cut
from prunescope.pruning.turn import whole_mask

#: Criteria that are slow by default.
QUICK: dict[str, dict[str, Any]] = {"synflow": {"iterations": 3}, "movement": {"steps": 3}}
#: All of whose scores are those of filters: written out here, so that none joins or leaves unseen.
OF_FILTERS = {"activation", "apoz", "bn-scale", "car", "chip", "fpgm", "taylor-gate"}
CUTS: dict[str, Granularity] = {
    **{name: granularity(name) for name in granularities},
    "channel, outgoing": granularity("channel", members="outgoing"),
    "channel, both": granularity("channel", members="both"),
}


def net() -> nn.Module:
    """Four layers, so that `uniform+` has a middle; with a norm, without, and inputs in fours."""
    with fixed_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(),
            nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip
    return model.eval()


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch_generator(0, "combinations")
    for _ in range(2):
        yield torch.randn(6, 4, 6, 6, generator=generator), torch.arange(6) % 3


def recipe(name: str, units: Granularity, scope: Scope) -> Recipe:
    schedule = Schedule(density=0.5, kind="one-shot", rounds=1)
    return Recipe("r", criterion(name, **QUICK.get(name, {})), scope, schedule, Rewind("none"), granularity=units)


def reason(name: str, cuts: str, scope: Scope) -> str | None:
    """By the rules as the documentation gives them: why a combination makes no sense."""
    if name in OF_FILTERS and cuts not in ("filter", "channel"):
        return "write granularity: filter"
    if cuts == "n:m" and scope in ("erk", "uniform+"):
        return "write scope: layer"
    return "iterations: 1" if cuts == "n:m" and name == "synflow" else None


def tensors(cuts: str, mask: Mask) -> dict[str, tuple[Any, int]]:
    """{what gets a share of its own: (shape of its weights, units in it)}, by the definitions."""
    found = {}
    if cuts.startswith("channel"):  # the head reads channels, and makes none that may go
        mask = Mask({name: kept for name, kept in mask.items() if kept.ndim == 4})
    for name, kept in mask.items():
        shape, width = kept.shape, kept[0].numel()
        count = {
            "weight": kept.numel(), "n:m": kept.numel(), "filter": shape[0], "connection": shape[1],
            "kernel": shape[0] * shape[1], "block": shape[0] * -(-width // 4),
        }.get(cuts, shape[0])  # fmt: skip
        found[name] = (shape, count)
    return found


def wanted(cuts: str, mask: Mask, scope: Scope, density: float) -> int:
    parts = tensors(cuts, mask)
    if scope == "global":
        return round(density * sum(count for _, count in parts.values()))
    units = {name: count for name, (_, count) in parts.items()}
    shares = layer_densities({name: shape for name, (shape, _) in parts.items()}, density, scope, units)
    return sum(round(shares[name] * count) for name, (_, count) in parts.items())


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("cuts", CUTS)
@pytest.mark.parametrize("name", sorted(criteria))
def test_every_combination_is_refused_or_cuts_exactly(name: str, cuts: str, scope: Scope) -> None:
    units, why = CUTS[cuts], reason(name, cuts, scope)
    if why is not None:
        with pytest.raises(PrunescopeError, match=why):
            recipe(name, units, scope)
        return
    made, model = recipe(name, units, scope), net()
    units = units.fitted(model, (4, 6, 6))
    whole = whole_mask(model, units)
    after = cut(model, whole, made.criterion, keep=0.5, scope=scope, granularity=units, batches=batches)
    total = sum(count for _, count in tensors(cuts, whole).values())
    assert round(units.density(model, after) * total) == wanted(cuts, whole, scope, 0.5)
    assert after.nested_in(whole)


def test_iterations_that_would_do_nothing_are_refused() -> None:
    with pytest.raises(PrunescopeError, match="'snip' would cut 4 times for nothing"):
        Recipe("r", criterion("snip", iterations=5), schedule=Schedule(density=0.5, kind="one-shot", rounds=1),
               granularity=granularity("n:m"))  # fmt: skip


def test_a_pattern_has_no_other_target() -> None:
    with pytest.raises(PrunescopeError, match="so there is no flops to aim at"):
        Recipe("r", schedule=Schedule(density=0.5, kind="one-shot"), granularity=granularity("n:m"), target="flops")


def test_scales_are_not_compared_before_there_are_any() -> None:
    before = Schedule(density=0.5, kind="one-shot", when="before-training")
    with pytest.raises(PrunescopeError, match="the scales of all norms are 1"):
        Recipe("r", criterion("bn-scale"), schedule=before, rewind=Rewind("init"), granularity=granularity("filter"))
