"""Removal equals masking, on every architecture that is promised and on random ones."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.models.few_heads import FewHeads
from prunescope.models.shrink import resize, shrink
from prunescope.pruning.granularity import granularity
from prunescope.pruning.scoring import criterion, cut
from random_nets import SHAPE, lively, networks

PROMISED = {
    "alexnet": 64, "vgg11": 32, "resnet18": 32, "resnet50": 32, "resnext50_32x4d": 32,
    "densenet121": 32, "googlenet": 64, "inception_v3": 96, "mobilenet_v2": 32, "mobilenet_v3_small": 32,
    "efficientnet_b0": 32, "convnext_tiny": 32, "vit_b_16": 224, "squeezenet1_0": 32, "shufflenet_v2_x0_5": 32,
    "regnet_y_400mf": 32,
}  # fmt: skip


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    inception = name in ("googlenet", "inception_v3")
    options = {"init_weights": False, "aux_logits": name == "googlenet"} if inception else {}
    return lively(torchvision_module("torchvision.models").get_model(name, weights=None, num_classes=7, **options))


def photographs(side: int) -> Tensor:
    """Two real ones, normalised: (2, 3, side, side)."""
    images = torch.stack([torch.from_numpy(np.array(image)) for image in load_sample_images().images])
    resized = F.interpolate(images.permute(0, 3, 1, 2).float() / 255, (side, side), mode="area")
    return (resized - resized.mean((0, 2, 3), keepdim=True)) / resized.std((0, 2, 3), keepdim=True)


def masked(model: nn.Module, keep: float, shape: tuple[int, ...], scope: Any = "global") -> Mask:
    units = granularity("channel").fitted(model, shape)
    mask = Mask.dense(model, units.names(model))
    mask = cut(model, mask, criterion("random"), keep=keep, granularity=units, scope=scope)
    mask.apply_(model)
    return mask


@pytest.mark.parametrize("name", PROMISED)
def test_a_smaller_network_has_the_masked_one_s_outputs(name: str) -> None:
    model, shape = network(name), (3, PROMISED[name], PROMISED[name])
    mask = masked(model, 0.6, shape)
    images = photographs(shape[1])
    small = shrink(model, shape, images)
    with torch.inference_mode():
        expected, found = model(images), small.network(images)
    assert expected.std() > 1e-3  # the outputs tell images or classes apart
    assert (expected - found).abs().max() < 1e-4
    assert small.removed == round(0.4 * small.units)
    left = sum(parameter.numel() for parameter in small.network.parameters())
    assert left == sum(parameter.numel() for parameter in model.parameters()) - (mask.total - mask.kept)


@given(networks(), st.floats(0.3, 1), st.sampled_from(["global", "layer"]))
@settings(max_examples=60, deadline=None)
def test_removal_equals_masking_on_random_architectures(model: nn.Module, keep: float, scope: str) -> None:
    mask = masked(model, max(keep, least(model)), SHAPE, scope)
    images = torch.rand(2, *SHAPE)
    small = shrink(model, SHAPE, images)
    assert small.difference <= 1e-4
    left = sum(parameter.numel() for parameter in small.network.parameters())
    assert left == sum(parameter.numel() for parameter in model.parameters()) - (mask.total - mask.kept)


def least(model: nn.Module) -> float:
    bound = granularity("channel").fitted(model, SHAPE).bound  # type: ignore[attr-defined]
    return len(bound.free_makers) / max(1, int(bound.free.sum()))


@given(networks(), st.floats(0.01, 0.3))
@settings(max_examples=40, deadline=None)
def test_any_mask_can_be_shrunk(model: nn.Module, keep: float) -> None:
    """Single weights: what nothing reads goes, and nothing else changes."""
    units = granularity("weight")
    mask = cut(model, Mask.dense(model, units.names(model)), criterion("random"), keep=keep)
    mask.apply_(model)
    assert shrink(model, SHAPE, torch.rand(2, *SHAPE)).difference <= 1e-4


def test_what_only_a_removed_unit_had_read_goes_as_well() -> None:
    model = lively(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)))
    with torch.no_grad():
        model[4].weight[:, 1:] = 0  # one unit of the second layer is left
        model[2].weight[0, 2:] = 0  # and it reads two of the first
    small = shrink(model, (4,))
    assert [layer.out_features for layer in small.network if isinstance(layer, nn.Linear)] == [2, 1, 2]
    assert small.removed == 8


def test_a_layer_that_is_wholly_idle_keeps_one_unit() -> None:
    model = lively(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)))
    with torch.no_grad():
        model[2].weight.zero_()
    small = shrink(model, (4,))
    assert small.network[0].out_features == 1  # type: ignore[index,union-attr]
    assert small.removed == 5


def test_a_constant_channel_is_still_read_and_stays() -> None:
    model = lively(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2)))
    with torch.no_grad():
        model[0].weight[1] = 0
    assert shrink(model, (1, 4, 4)).removed == 0


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit_b_16"])
def test_a_newly_built_network_takes_a_shrunk_one_s_sizes_and_weights(name: str) -> None:
    shape = (3, PROMISED[name], PROMISED[name])
    model = network(name)
    masked(model, 0.5, shape)
    small = shrink(model, shape)
    again = resize(network(name), small.sizes)
    again.load_state_dict(small.network.state_dict(), strict=True)
    images = torch.rand(2, *shape)
    with torch.inference_mode():
        assert torch.equal(again.eval()(images), small.network(images))


@pytest.mark.parametrize(("sizes", "words"), [
    ({"9": {"out_features": 1}}, "no module '9'"),
    ({"0": {"out_features": 9}}, r"0\.out_features: expected a number from 1 to 6, got 9"),
    ({"0": {"out_features": 0}}, r"from 1 to 6, got 0"),
    ({"0": {"weight": 3}}, r"0\.weight: expected"),
])  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, dict[str, int]], words: str) -> None:
    with pytest.raises(PrunescopeError, match=words):
        resize(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), sizes)


def test_a_network_that_counts_its_channels_is_refused() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.one(x).reshape(-1, 4, 16).mean(2))

    model = lively(Counting())
    masked(model, 0.5, (3, 4, 4))
    with pytest.raises(PrunescopeError, match="Counting does not run without the channels that went"):
        shrink(model, (3, 4, 4))


@pytest.mark.parametrize("batch_first", [True, False])
def test_attention_with_all_its_heads_is_torch_s(batch_first: bool) -> None:
    torch.manual_seed(0)
    whole = lively(nn.MultiheadAttention(12, 3, batch_first=batch_first))
    few = FewHeads.of(whole, range(3))  # type: ignore[arg-type]
    x = torch.rand(5, 4, 12)
    with torch.inference_mode():
        torch.testing.assert_close(few(x, x, x)[0], whole(x, x, x, need_weights=False)[0])
    with pytest.raises(PrunescopeError, match="self-attention without masks"):
        few(x, x, x, attn_mask=torch.zeros(4, 4))


def test_the_old_network_is_left_as_it_was() -> None:
    model = network("resnet18")
    masked(model, 0.5, (3, 32, 32))
    before = copy.deepcopy(model.state_dict())
    shrink(model, (3, 32, 32))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.conv1.out_channels == 64  # type: ignore[union-attr]
