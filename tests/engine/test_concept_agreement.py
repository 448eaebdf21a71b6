"""Agreement of concept scores without each filter, beside hooked copies of the network, filter by filter."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.data.split import Split
from prunescope.engine.ablation import partway
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.concept_agreement import ConceptAgreement, concept_agreement
from prunescope.engine.untouched import fixed_rng
from prunescope.testing.snapshot import Snapshot
from random_nets import SHAPE, networks

WIDTH = {"0": 4, "3": 5, "5": 6}
#: Behind which module each layer's channels are read.
READ_BEHIND = {"0": "2", "3": "4", "5": "8"}


def net() -> nn.Sequential:
    with fixed_rng():
        torch.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3), nn.ReLU(inplace=True),
            nn.Conv2d(5, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip
        model[1].running_mean.normal_()  # type: ignore[operator, union-attr]
        model[1].bias.data.normal_()  # type: ignore[operator, union-attr]
        return model.eval()


def images(count: int = 11, shape: tuple[int, ...] = (3, 9, 9)) -> Split:
    pixels = torch.randint(256, (count, *shape), generator=torch_generator(0, "concepts"), dtype=torch.uint8)
    return Split(pixels, torch.arange(count) % 3, np.arange(count).astype(str), ("a", "b", "c"))


def directions(features: int, concepts: int = 4) -> Tensor:
    return torch.randn(concepts, features, generator=torch_generator(1, "directions"))


def hooked(model: nn.Sequential, layer: str, channel: int, at: str, split: Split) -> Tensor:
    """Vectors at a place, with a channel zeroed by hand where it is read."""
    other, kept = copy.deepcopy(model), []
    for part in other:
        if hasattr(part, "inplace"):
            part.inplace = False  # type: ignore[assignment]

    def zero(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        keep = torch.ones(output.shape[1])
        keep[channel] = 0
        return output * keep.view(-1, *[1] * (output.dim() - 2))

    other[int(READ_BEHIND[layer])].register_forward_hook(zero)
    name, _, side = at.partition(":")
    if side:
        other[int(name)].register_forward_pre_hook(lambda _module, given: kept.append(given[0]))
    else:
        other[int(name)].register_forward_hook(lambda _module, _given, output: kept.append(output))
    with torch.no_grad():
        other(split.normalisation(split.images[:]))
    return kept[0] if kept[0].dim() == 2 else kept[0].mean((2, 3))


@pytest.mark.parametrize("memory", [1, 2**29])
@pytest.mark.parametrize(("at", "features"), [("9:input", 6), ("5", 6), ("5:input", 5), ("9", 3)])
def test_correlations_are_those_of_hooked_copies(
    at: str, features: int, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partway, "MEMORY", memory)
    model, split, axes = net(), images(), directions(features)
    found = concept_agreement(model, split, list(WIDTH), axes, at=at)
    assert found.units == tuple((layer, channel) for layer, width in WIDTH.items() for channel in range(width))
    whole = _whole(model, at, split)
    for (layer, channel), row in zip(found.units, found.correlation, strict=True):
        without = hooked(model, layer, channel, at, split)
        expected = [pearsonr(whole @ axis, without @ axis)[0] for axis in axes]
        np.testing.assert_allclose(row, expected, atol=1e-5)
    assert found.correlation.min() < 0.9
    assert (found.layer, found.images) == (at, 11)


def _whole(model: nn.Sequential, at: str, split: Split) -> Tensor:
    name, _, side = at.partition(":")
    with torch.no_grad():
        x = copy.deepcopy(model)[: int(name) + (not side)](split.normalisation(split.images[:]))
    return x if x.dim() == 2 else x.mean((2, 3))


@given(model=networks(), data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_correlations_are_those_of_full_runs_on_random_networks(model: nn.Module, data: st.DataObject) -> None:
    model, split = model.double(), images(5, SHAPE)
    stage = Stage(capture(model, SHAPE, fold=False))
    calls = [node for node in stage.traced.graph.nodes if node.op == "call_module"]
    once = [node for node in calls if [n.target for n in calls].count(node.target) == 1]
    place = data.draw(st.sampled_from([node for node in once if len(node.meta["shape"]) in (2, 4)]))
    axes = directions(place.meta["shape"][1], 2).double()
    layers = {name: sorted({0, count - 1}) for name, count in stage.channels.items()}
    found = concept_agreement(model, split, layers, axes, at=str(place.target))
    x = split.normalisation(split.images[:]).double()

    def scores(values: Tensor) -> Tensor:
        return (values if values.dim() == 2 else values.mean((2, 3))) @ axes.T

    with torch.no_grad():
        whole = scores(stage.run(x)[place])
        for (layer, channel), row in zip(found.units, found.correlation, strict=True):
            worlds = partway.Worlds.grid(torch.tensor([channel]), len(x))
            without = scores(stage.run(x, stage.without(layer, worlds))[place])
            for k, value in enumerate(row):
                a, b = whole[:, k], without[:, k]
                if min(float(a.std() / a.abs().max()), float(b.std() / b.abs().max())) > 1e-4 and b.std() > 1e-3:
                    assert value == pytest.approx(pearsonr(a, b)[0], abs=1e-3)


def test_scores_that_all_shift_or_stretch_alike_agree_in_full_and_constant_ones_have_no_correlation() -> None:
    """Filter 1 gives every image the same; the vector is only filter 2."""
    model, split = net(), images()
    with torch.no_grad():
        model[5].weight[1], model[5].bias[1] = 0.0, 2.0  # type: ignore[index, union-attr]
    axes = torch.zeros(3, 6)
    axes[0, 1], axes[1, 2], axes[2, 2], axes[2, 1] = 1.0, 1.0, -0.5, 3.0
    found = concept_agreement(model, split, {"5": [1, 2, 3]}, axes, at="9:input")
    assert np.isnan(found.correlation[:, 0]).all()
    np.testing.assert_allclose(found.correlation[[0, 2], 1:], 1, atol=1e-6)
    assert np.isnan(found.correlation[1]).all()
    np.testing.assert_allclose(found.reduction()[[0, 2]], 0, atol=1e-6)
    assert np.isnan(found.reduction()[1])


def test_reductions_leave_out_what_is_unknown_and_intervals_are_fishers() -> None:
    found = ConceptAgreement((("a", 0), ("a", 1)), "b", np.array([[0.5, np.nan, 1.0], [np.nan] * 3]), 103)
    np.testing.assert_allclose(found.reduction(), [0.25, np.nan])
    low, high = found.interval()
    np.testing.assert_allclose((low[0, 0], high[0, 0]), np.tanh(np.arctanh(0.5) + np.array([-1, 1]) * 0.1959964))
    expected = pearsonr(*_with_correlation(0.5, 103)).confidence_interval(0.9)
    low, high = found.interval(level=0.9)
    np.testing.assert_allclose((low[0, 0], high[0, 0]), expected, rtol=1e-6)
    assert np.isnan(low[0, 1])
    assert low[0, 2] <= high[0, 2] == pytest.approx(1)
    with pytest.raises(PrunescopeError, match="needs 4 images or more, got 3"):
        ConceptAgreement((("a", 0),), "b", np.array([[0.5]]), 3).interval()


def _with_correlation(r: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    a, b = np.linalg.qr(np.c_[np.ones(count), generator.normal(size=(count, 2))])[0][:, 1:].T
    return a, r * a + np.sqrt(1 - r * r) * b


def test_what_does_not_fit_is_refused_and_the_network_is_left_alone() -> None:
    model, split = net(), images()
    before, told = Snapshot(model), []
    concept_agreement(model, split, ["3"], directions(6), at="9:input", on_worlds=lambda *done: told.append(done))
    assert told[-1] == (55, 55)
    assert not before.differences()
    for axes, at, message in (
        (directions(5), "9:input", "directions have 5 features, vectors of '9:input' 6"),
        (directions(6)[0], "9:input", r"directions need shape \(concepts, features\), got \(6,\)"),
        (directions(6), "9:output", "'9:output' is no place in the network"),
        (directions(6), "10", "unknown module '10'"),
    ):
        with pytest.raises(PrunescopeError, match=message):
            concept_agreement(model, split, ["3"], axes, at=at)
    with pytest.raises(PrunescopeError, match="unknown layer with units '9'"):
        concept_agreement(model, split, ["9"], directions(6), at="9:input")
    with pytest.raises(PrunescopeError, match="the split has none"):
        concept_agreement(model, split.subset(torch.arange(0)), ["3"], directions(6), at="9:input")
