"""Units of weights, beside torch.nn.utils.prune and naive loops."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_nets import PRUNABLE, noise, tiny_net
from torch import Tensor, nn
from torch.nn.utils import prune

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.seeds import torch_generator
from prunescope.engine.training import Training
from prunescope.models.layers import prunable
from prunescope.pruning.controls import shuffled
from prunescope.pruning.granularity import Granularity, granularities, granularity
from prunescope.pruning.loop import rounds
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scope import Scope
from prunescope.pruning.scoring import criterion, cut
from prunescope.pruning.turn import whole_mask
from random_nets import networks

ALL = [granularity(name) for name in granularities if name not in ("weight", "n:m", "channel")]


class Grouped(nn.Module):
    """Plain, grouped and depthwise convolutions, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.plain = nn.Conv2d(3, 8, 3)
        self.grouped = nn.Conv2d(8, 12, 3, groups=2, bias=False)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12)
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 8, 8) -> (B, 4)."""
        return self.head(self.depthwise(self.grouped(self.plain(x))).mean((2, 3)))


def grouped() -> nn.Module:
    torch.manual_seed(0)
    return Grouped().eval()


def by_magnitude(model: nn.Module, units: Granularity, keep: float, scope: Scope = "layer") -> Mask:
    return cut(model, whole_mask(model, units), criterion("magnitude"), keep=keep, scope=scope, granularity=units)


@pytest.mark.parametrize(("name", "dim"), [("filter", 0), ("connection", 1)])
@pytest.mark.parametrize("amount", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("p", [1, 2])
def test_filters_and_connections_are_torch_s(name: str, dim: int, amount: float, p: int) -> None:
    model, units = tiny_net(), granularity(name)
    by = criterion("magnitude", p=p)
    ours = cut(model, whole_mask(model, units), by, keep=1 - amount, scope="layer", granularity=units)
    for parameter, kept in ours.items():
        layer = model.get_submodule(parameter.rpartition(".")[0])
        gone = kept.shape[dim] - round((1 - amount) * kept.shape[dim])  # torch rounds what goes, a half to even
        prune.ln_structured(layer, "weight", amount=gone, n=p, dim=dim)
        assert torch.equal(kept, layer.weight_mask.bool()), parameter


def unit_of(name: str, place: tuple[int, ...], layer: nn.Module) -> tuple[int, ...]:
    """By the definition: which unit a weight belongs to."""
    if name == "filter":
        return place[:1]
    if name == "kernel":
        return place[:2]
    if name == "connection":
        groups = getattr(layer, "groups", 1)
        width = layer.weight.shape[1]  # type: ignore[union-attr,index]
        return (place[0] // (len(layer.weight) // groups) * width + place[1],)  # type: ignore[arg-type]
    column = 0
    for size, index in zip(layer.weight.shape[1:], place[1:], strict=True):  # type: ignore[union-attr,index]
        column = column * size + index
    return place[0], column // 4


@pytest.mark.parametrize("units", ALL, ids=lambda units: units.name)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_unit_stays_or_goes_and_the_best_stay(units: Granularity, scope: Scope) -> None:
    model = grouped()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    mask = by_magnitude(model, units, 0.4, scope)
    scores: dict[Any, list[float]] = {}
    stays: dict[Any, set[bool]] = {}
    for name, kept in mask.items():
        layer = model.get_submodule(name.rpartition(".")[0])
        for place in product(*map(range, kept.shape)):
            unit = (name, *unit_of(units.name, place, layer))
            scores.setdefault(unit, []).append(float(weights[name][place].abs()))
            stays.setdefault(unit, set()).add(bool(kept[place]))
    assert all(len(answers) == 1 for answers in stays.values())
    means = {unit: sum(values) / len(values) for unit, values in scores.items()}
    for name in mask if scope == "layer" else [None]:
        mine = [unit for unit in means if name in (None, unit[0])]
        best = sorted(mine, key=lambda unit: -means[unit])[: round(0.4 * len(mine))]
        assert {unit for unit in mine if stays[unit] == {True}} == set(best)


@settings(max_examples=60, deadline=None)
@given(
    units=st.sampled_from([*ALL, granularity("weight"), granularity("block", rows=2, columns=3)]),
    densities=st.lists(st.floats(0.05, 0.95), min_size=1, max_size=3),
    scope=st.sampled_from(["layer", "global"]),
    model=st.one_of(st.builds(grouped), networks()),
)
def test_cuts_nest_and_count_exactly(
    units: Granularity, densities: list[float], scope: Scope, model: nn.Module
) -> None:
    mask = whole_mask(model, units)
    total = {name: units_in(units, model, Mask({name: kept})) for name, kept in mask.items()}
    for density in sorted(densities, reverse=True):
        before = mask
        mask = cut(model, mask, criterion("random"), keep=density, scope=scope, granularity=units)
        assert mask.nested_in(before)
        if scope == "global":
            assert units.density(model, mask) * sum(total.values()) == pytest.approx(
                round(density * sum(total.values()))
            )
        else:
            for name, kept in mask.items():
                share = units.density(model, Mask({name: kept}))
                assert share * total[name] == pytest.approx(round(density * total[name]))


def units_in(units: Granularity, model: nn.Module, mask: Mask) -> int:
    """How many units a tensor has: one over the share that a single weight's unit is."""
    only = {name: torch.zeros_like(kept) for name, kept in mask.items()}
    for kept in only.values():
        kept.view(-1)[0] = True
    return round(1 / units.density(model, Mask(only)))


@pytest.mark.parametrize("units", [*ALL, granularity("weight"), granularity("n:m")], ids=lambda units: units.name)
def test_random_controls_have_as_many_units_in_every_layer(units: Granularity) -> None:
    model, names = grouped(), ["grouped.weight", "head.weight"]
    whole = Mask.dense(model, names)
    mask = cut(model, whole, criterion("magnitude"), keep=0.5, scope="layer", granularity=units)
    control = shuffled(model, mask, 1, units)
    assert control != mask
    assert control == shuffled(model, mask, 1, units)
    for name in names:
        one, other = Mask({name: mask[name]}), Mask({name: control[name]})
        assert units.density(model, one) == units.density(model, other)
        assert one.kept == other.kept


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (1, 2)])
def test_n_of_every_m_along_the_inputs(n: int, m: int) -> None:
    model = grouped()
    names = ["grouped.weight", "head.weight"]
    units = granularity("n:m", n=n, m=m)
    mask = cut(model, Mask.dense(model, names), criterion("magnitude"), keep=n / m, granularity=units)
    for name in names:
        weight = dict(model.named_parameters())[name].detach().abs()
        weight, kept = weight.reshape(*weight.shape[:2], -1), mask[name].reshape(*weight.shape[:2], -1)
        for out, where in product(range(weight.shape[0]), range(weight.shape[2])):
            for start in range(0, weight.shape[1], m):
                row = weight[out, start : start + m, where].tolist()
                best = sorted(range(m), key=lambda i, row=row: -row[i])[:n]
                assert kept[out, start : start + m, where].nonzero().flatten().tolist() == sorted(best)


def test_what_must_not_be_cut_is_spared() -> None:
    model = grouped()
    assert list(whole_mask(model, granularity("filter"))) == ["plain.weight", "grouped.weight", "depthwise.weight"]
    assert list(whole_mask(model, granularity("connection"))) == ["grouped.weight", "depthwise.weight", "head.weight"]
    assert list(whole_mask(model, granularity("weight"))) == prunable(model)


def test_pruned_filters_stay_zero_through_retraining() -> None:
    model = tiny_net()
    recipe = Recipe(
        "filters", scope="layer", granularity=granularity("filter"), schedule=Schedule(density=0.5, rounds=2),
        rewind=Rewind(to="none"),
    )  # fmt: skip
    for ticket in rounds(model, recipe, noise(), Training(epochs=1, batch_size=16, lr=0.1), seed=0, device="cpu"):
        assert ticket.mask is not None
        for name, kept in ticket.mask.items():
            rows = kept.flatten(1)
            assert bool((rows.all(1) | ~rows.any(1)).all())
            assert bool((dict(model.named_parameters())[name][~kept] == 0).all())
    assert [int(kept.flatten(1).any(1).sum()) for kept in ticket.mask.values()] == [
        round(0.5 * len(kept)) for kept in ticket.mask.values()
    ]


def test_reductions_differ_only_between_layers() -> None:
    model = grouped()
    mean, total = granularity("filter"), granularity("filter", reduce="sum")
    assert by_magnitude(model, mean, 0.5) == by_magnitude(model, total, 0.5)
    assert by_magnitude(model, mean, 0.5, "global") != by_magnitude(model, total, 0.5, "global")


@pytest.mark.parametrize(("build", "words"), [
    (lambda: granularity("filters"), "did you mean 'filter'"),
    (lambda: criterion("magnitude", p=0), "above 0"),
    (lambda: granularity("block", rows=0), "at least 1"),
    (lambda: granularity("filter", reduce="max"), "reduce"),
    (lambda: granularity("n:m", n=4, m=4), "0 < n < m"),
    (lambda: Recipe("r", granularity=granularity("n:m")), "density: 0.5, kind: one-shot"),
    (lambda: Recipe("r", granularity="filter"), "granularity\\('filter'\\)"),
    (lambda: by_magnitude(grouped(), granularity("n:m"), 0.5), "does not divide the inputs of plain.weight, depthwise"),
    (lambda: cut(grouped(), Mask.dense(grouped(), ["plain.bias"]), criterion("magnitude"), keep=0.5,
                 granularity=granularity("kernel")), "convolutions and linear layers only"),
])  # fmt: skip
def test_what_cannot_be_is_refused(build: Any, words: str) -> None:
    with pytest.raises(PrunescopeError, match=words):
        build()


def test_weights_shuffle_as_ever() -> None:
    mask = Mask({name: torch.rand(p.shape) > 0.5 for name, p in tiny_net().named_parameters() if name in PRUNABLE})
    drawn = shuffled(nn.Module(), mask, 3)
    generator = torch_generator(3, "shuffled mask")
    for name, kept in mask.items():
        assert torch.equal(drawn[name].flatten(), kept.flatten()[torch.randperm(kept.numel(), generator=generator)])
