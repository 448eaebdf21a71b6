"""Shares of parameters, operations and time: by counting the smaller network, and by the definition of the search."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.flops import count_flops
from prunescope.models.shrink import shrink
from prunescope.pruning.granularity import granularity
from prunescope.pruning.scoring import criterion, cut
from prunescope.pruning.target import Target, share_of
from prunescope.pruning.turn import whole_mask
from random_nets import SHAPE, Net, lively, networks

TARGETS = st.sampled_from(["parameters", "flops"])


def counted(model: nn.Module, target: str) -> float:
    """Of a network as it is."""
    if target == "parameters":
        return sum(parameter.numel() for parameter in model.parameters())
    return count_flops(model, torch.zeros(1, *SHAPE)).total


@given(networks(), TARGETS, st.floats(0.3, 1))
@settings(max_examples=30, deadline=None)
def test_shares_are_the_smaller_network_s(model: nn.Module, target: Target, keep: float) -> None:
    units = granularity("channel").fitted(model, SHAPE)
    mask = whole_mask(model, units)
    try:
        mask = cut(model, mask, criterion("random"), keep=keep, granularity=units)
    except PrunescopeError:
        return  # fewer channels than layers
    small = copy.deepcopy(model)
    mask.apply_(small)
    small = shrink(small, SHAPE).network
    assert share_of(target, model, SHAPE)(mask) == pytest.approx(counted(small, target) / counted(model, target))


@given(networks(), TARGETS, st.floats(0.4, 1), st.sampled_from(["channel", "filter", "weight"]))
@settings(max_examples=30, deadline=None)
def test_one_more_unit_would_be_too_much(model: nn.Module, target: Target, wanted: float, name: str) -> None:
    """Beside every cut that there is, one unit more each time."""
    units, share = granularity(name).fitted(model, SHAPE), share_of(target, model, SHAPE)
    whole, by = whole_mask(model, units), criterion("magnitude")
    count = {"channel": getattr(units, "bound", None) and int(units.bound.free.sum()), "weight": whole.total}.get(name)  # type: ignore[attr-defined]
    count = count or sum(len(kept) for kept in whole.values())
    fewest = len(units.bound.free_makers) if name == "channel" else 0  # type: ignore[attr-defined]
    scores = by.score(model, units.scored(whole), batches=None, seed=0)
    fits = [share(units.keep(model, scores, whole, left / count, "global")) for left in range(fewest, count + 1)]
    most = max((left for left, value in enumerate(fits, fewest) if value <= wanted), default=None)
    options = {"target": target, "shape": SHAPE, "granularity": units}
    if most is None:
        with pytest.raises(PrunescopeError, match="still leaves more"):
            cut(model, whole, by, keep=wanted, **options)  # type: ignore[arg-type]
        return
    mask = cut(model, whole, by, keep=wanted, **options)  # type: ignore[arg-type]
    assert units.density(model, mask) == pytest.approx(most / count)


def test_nothing_is_cut_where_all_may_stay() -> None:
    model = lively(Net([], flat=False))
    units = granularity("channel").fitted(model, SHAPE)
    whole = whole_mask(model, units)
    options = {"target": "flops", "shape": SHAPE, "granularity": units}
    assert cut(model, whole, criterion("magnitude"), keep=1, **options) == whole  # type: ignore[arg-type]


def test_a_target_below_what_must_stay_is_refused() -> None:
    model = lively(Net([], flat=False))
    units = granularity("channel").fitted(model, SHAPE)
    with pytest.raises(PrunescopeError, match=r"still leaves more than 1\.0% of the parameters"):
        cut(model, whole_mask(model, units), criterion("magnitude"), keep=0.01, target="parameters", granularity=units)


def test_time_is_measured_and_reached() -> None:
    torch.manual_seed(0)
    model = lively(nn.Sequential(nn.Conv2d(3, 96, 3, padding=1), nn.ReLU(), nn.Conv2d(96, 96, 3, padding=1), nn.ReLU(),
                                 nn.Conv2d(96, 64, 3, padding=1), nn.Flatten(), nn.Linear(4096, 4)))  # fmt: skip
    units = granularity("channel").fitted(model, SHAPE)
    mask = cut(
        model, whole_mask(model, units), criterion("magnitude"), keep=0.7, scope="layer", target="latency",
        shape=SHAPE, granularity=units,
    )  # fmt: skip
    assert 0 < units.density(model, mask) < 1
