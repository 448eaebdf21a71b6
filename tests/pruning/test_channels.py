"""Channels with all that hangs on them: counts, nesting, scores beside naive loops, what is never lost."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_nets import noise, tiny_net
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.engine.training import Training
from prunescope.models.graph import channel_graph
from prunescope.models.shrink import shrink
from prunescope.pruning.controls import shuffled
from prunescope.pruning.granularities.coupled import Channels
from prunescope.pruning.loop import rounds
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scope import Scope
from prunescope.pruning.scoring import criterion, cut
from prunescope.pruning.turn import whole_mask
from random_nets import SHAPE, Net, lively, networks

SCOPES = st.sampled_from(["global", "layer"])


def fitted(model: nn.Module, *ignore: str, **options: str) -> Channels:
    return Channels(**options).fitted(model, SHAPE, ignore)  # type: ignore[arg-type]


def alive(model: nn.Module, mask: Mask) -> torch.Tensor:
    """Bool per unit, from the rows of its makers."""
    graph = channel_graph(model, SHAPE)
    found = torch.zeros(graph.units, dtype=torch.bool)
    for name in graph.makers:
        for index, unit in enumerate(graph.axes[name][0].tolist()):
            if unit >= 0 and name in mask:
                found[unit] |= bool(mask[name][index].any())
    return found


@given(networks(), st.lists(st.floats(0.3, 1), min_size=1, max_size=3), SCOPES, st.booleans())
@settings(max_examples=50, deadline=None)
def test_cuts_nest_count_exactly_and_lose_no_layer(
    model: nn.Module, densities: list[float], scope: Scope, chance: bool
) -> None:
    units = fitted(model)
    graph, mask = units.bound.graph, whole_mask(model, units)
    family, makers = graph.families()
    least = len(makers) / graph.units
    for density in sorted((max(d, least) for d in densities), reverse=True):
        by = criterion("random" if chance else "magnitude")
        smaller = cut(model, mask, by, keep=density, scope=scope, granularity=units)
        left = alive(model, smaller)
        assert smaller.nested_in(mask)
        assert len(family[left].unique()) == len(makers)
        if scope == "global":
            assert int(left.sum()) == round(density * graph.units)
        else:
            for number in range(len(makers)):
                of = family == number
                assert int(left[of].sum()) == max(1, round(density * int(of.sum())))
        assert units.density(model, smaller) == pytest.approx(float(left.double().mean()))
        for name, kept in smaller.items():  # a weight is kept when the units that make and read it are
            assert torch.equal(kept, graph.kept(name, left, kept.shape))
        mask = smaller


@pytest.mark.parametrize("members", ["incoming", "outgoing", "both"])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("p", [1, 2])
def test_a_unit_s_score_is_that_of_its_weights(members: str, reduce: str, p: int) -> None:
    torch.manual_seed(0)
    model = lively(Net([("residual", 6, True), ("branches", 3, 4), ("depthwise",), ("gate",)], flat=True))
    units = fitted(model, members=members, reduce=reduce)
    graph = units.bound.graph
    weights = {name: weight for name, weight in model.named_parameters() if weight.dim() > 1}
    values = torch.zeros(graph.units, dtype=torch.float64)
    for unit in range(graph.units):
        terms = []
        for name, weight in weights.items():
            for axis in {"incoming": [0], "outgoing": [1], "both": [0, 1]}[members]:
                at = (graph.axes[name][axis] == unit).nonzero().flatten() if axis in graph.axes[name] else []
                terms += [weight.select(axis, int(i)).abs().double().flatten() ** p for i in at]
        together = torch.cat(terms)
        values[unit] = together.sum() if reduce == "sum" else together.mean()
    mask = cut(model, whole_mask(model, units), criterion("magnitude", p=p), keep=0.5, granularity=units)
    family, makers = graph.families()
    for number in range(len(makers)):  # the best of each layer stays whatever its score
        of = (family == number).nonzero().flatten()
        values[of[values[of].argmax()]] = torch.inf
    best = values.sort(descending=True, stable=True).indices[: round(0.5 * graph.units)]
    assert torch.equal(alive(model, mask).nonzero().flatten(), best.sort().values)


def test_fewer_channels_than_layers_are_refused() -> None:
    model = tiny_net()
    units = Channels().fitted(model, (3, 6, 6))
    with pytest.raises(PrunescopeError, match=r"every layer keeps at least one channel: 18\.18% of all in 2 layers"):
        cut(model, whole_mask(model, units), criterion("magnitude"), keep=0.1, granularity=units)


def test_ignored_layers_keep_their_outputs() -> None:
    model = tiny_net()
    units = Channels().fitted(model, (3, 6, 6), ["conv1"])
    mask = cut(model, whole_mask(model, units, ["conv1"]), criterion("magnitude"), keep=0.4, granularity=units)
    assert set(mask) == {"conv2.weight", "conv2.bias", "head.weight"}
    assert int(mask["conv2.weight"].flatten(1).any(1).sum()) == 2
    with pytest.raises(PrunescopeError, match="did you mean 'conv1'"):
        Channels().fitted(model, (3, 6, 6), ["conv11"])


def test_a_granularity_that_does_not_know_the_network_says_so() -> None:
    with pytest.raises(PrunescopeError, match="must know the network"):
        whole_mask(tiny_net(), Channels())


@pytest.mark.parametrize("options", [{"reduce": "most"}, {"members": "all"}])
def test_unknown_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(PrunescopeError, match="unknown"):
        Channels(**options)  # type: ignore[arg-type]


@given(networks(), st.floats(0.3, 0.9), st.integers(0, 9))
@settings(max_examples=20, deadline=None)
def test_random_controls_have_as_many_channels_in_every_layer(model: nn.Module, keep: float, seed: int) -> None:
    units = fitted(model)
    graph = units.bound.graph
    family, makers = graph.families()
    keep = max(keep, len(makers) / graph.units)
    mask = cut(model, whole_mask(model, units), criterion("magnitude"), keep=keep, granularity=units)
    drawn = shuffled(model, mask, seed, units)
    for number in range(len(makers)):
        of = family == number
        assert int(alive(model, drawn)[of].sum()) == int(alive(model, mask)[of].sum())


def test_rounds_keep_what_is_gone_at_zero_and_the_ticket_shrinks() -> None:
    model, split = tiny_net(), noise()
    recipe = Recipe(
        "channels", granularity=Channels(), schedule=Schedule(density=0.4, rounds=2), rewind=Rewind(to="none")
    )
    training = Training(epochs=1, batch_size=16, lr=0.05, precision="32")
    tickets = list(rounds(model, recipe, split, training, seed=0, device="cpu"))
    assert tickets[1].mask.nested_in(tickets[0].mask)  # type: ignore[union-attr,arg-type]
    for name, kept in tickets[1].mask.items():  # type: ignore[union-attr]
        assert not tickets[1].weights[name][~kept].any()
    small = shrink(model.eval(), split.shape)
    assert small.units - small.removed == round(0.4 * small.units)
