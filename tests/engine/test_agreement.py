"""Agreement of explanations without each filter, beside Grad-CAM of a hooked copy, filter by filter."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from full_agreement import full_maps
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.data.split import Split
from prunescope.engine.ablation import partway
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.agreement import Agreement, explanation_agreement
from prunescope.engine.untouched import fixed_rng
from prunescope.metrics.maps import pearson
from prunescope.probes.gradcam import gradcam_maps
from prunescope.testing.snapshot import Snapshot
from random_nets import SHAPE, networks

READS = {"one": ("first",), "two": ("second", "across"), "three": ("third",)}


class Net(nn.Module):
    """A layer before the maps, the layer of the maps with a skip, one behind it; in-place ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.act = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.two, self.three = nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.head = nn.Linear(5, 3)
        for names in READS.values():
            for name in names:
                setattr(self, name, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 7, 7) -> (B, 3)."""
        x = self.first(self.act(self.norm(self.one(x))))
        x = self.act(self.two(x))
        x = self.third(F.gelu(self.three(self.second(x)))) + self.across(x)
        return self.head(x.mean((2, 3)))


def net(seed: int = 0) -> Net:
    with fixed_rng():
        model = Net().eval()
    generator = torch_generator(seed, "agreement")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5)
        model.norm.running_var.abs_().add_(0.5)  # type: ignore[union-attr, operator]
    return model


def images(count: int = 9, shape: tuple[int, ...] = (3, 7, 7)) -> Split:
    generator = torch_generator(0, "agreement images")
    pixels = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    return Split(pixels, torch.arange(count) % 3, np.arange(count).astype(str), ("a", "b", "c"))


def hooked(model: Net, layer: str, channel: int) -> Net:
    def zero(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        keep = torch.ones(output.shape[1])
        keep[channel] = 0
        return output * keep[:, None, None]

    other = copy.deepcopy(model)
    for name in READS[layer]:
        getattr(other, name).register_forward_hook(zero)
    return other


def naive(
    model: Net, split: Split, at: str, layers: Any
) -> tuple[list[list[float]], list[list[float]], list[list[bool]]]:
    x = split.normalisation(split.images[:])
    with torch.no_grad():
        said = model(x).argmax(1)
    whole = gradcam_maps(model, x, layer=at, target=said).flatten(1).numpy()
    tables: tuple[Any, Any, Any] = ([], [], [])
    for layer, channels in layers.items():
        for channel in channels:
            found = gradcam_maps(hooked(model, layer, channel), x, layer=at, target=said).flatten(1).numpy()
            for table, measure in zip(tables, (spearmanr, pearsonr), strict=False):
                blank = (whole.max(1) == 0) | (found.max(1) == 0)
                table.append(
                    [np.nan if none else measure(a, b)[0] for a, b, none in zip(whole, found, blank, strict=True)]
                )
            tables[2].append((found.max(1) == 0).tolist())
    return tables


ALL = {"one": range(4), "two": range(5), "three": range(5)}


@pytest.mark.parametrize("memory", [1, 60_000, 2**29])
@pytest.mark.parametrize("at", ["one", "two", "three"])
def test_agreement_is_that_of_hooked_copies_one_by_one(at: str, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of filters behind the maps, which change their weights alone."""
    monkeypatch.setattr(partway, "MEMORY", memory)
    monkeypatch.setattr(partway, "IMAGES", 4)
    model, split = net(), images()
    found = explanation_agreement(model, split, list(ALL), at=at)
    spearman, pearson, blank = naive(model, split, at, ALL)
    assert found.units == tuple((layer, channel) for layer, channels in ALL.items() for channel in channels)
    np.testing.assert_array_equal(found.blank, blank)
    np.testing.assert_allclose(found.pearson, pearson, atol=1e-4)
    np.testing.assert_allclose(found.spearman, spearman, atol=1e-2)  # nearly equal pixels may change places
    assert np.nanmedian(np.abs(found.spearman - spearman)) < 1e-6
    assert np.nanmin(found.pearson) < 0.9
    assert np.isfinite(found.pearson).mean() > 0.5


@given(model=networks(), data=st.data())
@settings(max_examples=25, deadline=None, derandomize=True)
def test_agreement_is_that_of_full_passes_on_random_networks(model: nn.Module, data: st.DataObject) -> None:
    """Maps at any convolution, units before, at, beside and behind it."""
    model, split = model.double(), images(3, SHAPE)
    channels = Stage(capture(model, SHAPE, fold=False)).channels
    at = data.draw(st.sampled_from([n for n, part in model.named_modules() if isinstance(part, nn.Conv2d)]))
    layers = {name: sorted({0, count - 1}) for name, count in channels.items()}
    whole, parts = full_maps(model, split, layers, at)
    assume(not _nearly_blank(torch.cat([whole[None], parts])))
    found = explanation_agreement(model, split, layers, at=at)
    np.testing.assert_array_equal(found.dense_blank, ~whole.flatten(1).any(1).numpy())
    np.testing.assert_array_equal(found.blank, ~parts.flatten(2).any(2).numpy())
    expected = np.stack([pearson(whole.numpy(), part.numpy()) for part in parts])
    np.testing.assert_allclose(found.pearson, expected, atol=1e-5)


def _nearly_blank(maps: Tensor) -> bool:
    """Whether the largest value of some map is nothing but rounding."""
    peaks = maps.flatten(-2).amax(-1)
    return bool(((peaks > 0) & (peaks < 1e-9)).any())


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    explanation_agreement(net(), images(), ["two"], on_worlds=lambda done, of: told.append((done, of)))
    assert told[-1] == (45, 45)
    assert all(done < 45 for done, _ in told[:-1])


def test_the_last_convolution_is_where_maps_are_and_channels_can_be_named() -> None:
    model, split = net(), images()
    all_ = explanation_agreement(model, split, ["two"], at="three")
    some = explanation_agreement(model, split, {"two": [3, 1]})
    assert some.layer == "three"
    assert some.units == (("two", 1), ("two", 3))
    np.testing.assert_allclose(some.pearson, all_.pearson[[1, 3]], atol=1e-5)


def test_a_filter_that_nothing_needs_changes_nothing() -> None:
    model = net()
    with torch.no_grad():
        model.norm.weight[2], model.norm.bias[2] = 0.0, -1.0
    found = explanation_agreement(model, images(), ["one"])
    whole = ~found.dense_blank
    assert whole.any()
    np.testing.assert_allclose(found.pearson[2, whole], 1, atol=1e-6)
    np.testing.assert_allclose(found.reduction("pearson")[2], 0, atol=1e-6)
    assert found.lost[2] == 0


def test_reductions_are_over_maps_that_are_there_and_blank_ones_are_counted() -> None:
    values = np.array([[1.0, np.nan, 0.5, np.nan], [np.nan] * 4])
    blank = np.array([[False, True, False, True], [True] * 4])
    found = Agreement((("a", 0), ("a", 1)), "b", values, values - 1, blank, np.array([False, False, False, True]))
    np.testing.assert_allclose(found.reduction(), [0.25, np.nan])
    np.testing.assert_allclose(found.reduction("pearson"), [1.25, np.nan])
    np.testing.assert_allclose(found.lost, [1 / 3, 1])
    with pytest.raises(PrunescopeError, match="unknown agreement 'kendall'"):
        found.reduction("kendall")


def test_what_makes_no_sense_is_refused_and_the_network_is_left_alone() -> None:
    model, split = net(), images()
    before = Snapshot(model)
    explanation_agreement(model, split, ["two"])
    assert not before.differences()
    with pytest.raises(PrunescopeError, match=r"unknown module with maps .* 'tow'; did you mean 'two'"):
        explanation_agreement(model, split, ["two"], at="tow")
    with pytest.raises(PrunescopeError, match=r"unknown module with maps .* 'head'"):
        explanation_agreement(model, split, ["two"], at="head")
    with pytest.raises(PrunescopeError, match="'act' is called 2 times"):
        explanation_agreement(model, split, ["two"], at="act")
    with pytest.raises(PrunescopeError, match="unknown layer with units"):
        explanation_agreement(model, split, ["head"])
