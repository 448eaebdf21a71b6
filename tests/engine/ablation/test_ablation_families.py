"""torchvision's families, all layers: replays beside full runs.

Where a family has a class of its own that takes its sizes, it is built narrow and shallow: the code is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_ablation_replay import assert_replays_equal_full_runs
from torch import nn

from prunescope.core.compat import torchvision_module
from random_nets import lively

SIZE = {"alexnet": 64}


def vgg(library: Any) -> nn.Module:
    model = library.vgg11_bn(weights=None)
    model.classifier = nn.Sequential(nn.Linear(512 * 49, 20), nn.ReLU(True), nn.Dropout(), nn.Linear(20, 7))
    return model


FAMILIES: dict[str, Callable[[Any], nn.Module]] = {
    "vgg11_bn": vgg,
    "googlenet": lambda library: library.googlenet(weights=None, num_classes=7, init_weights=False),
    "resnext": lambda library: library.ResNet(library.resnet.Bottleneck, [2, 1, 1, 1], 7, groups=8, width_per_group=4),
    "densenet": lambda library: library.DenseNet(8, (2, 3, 2, 2), 12, num_classes=7),
    "vit": lambda library: library.VisionTransformer(32, 8, 2, 3, 24, 30, num_classes=7),
    "swin": lambda library: library.SwinTransformer([4, 4], 12, [2, 2], [2, 3], [4, 4], num_classes=7),
    "swin_v2": lambda library: library.SwinTransformer(
        [4, 4], 12, [2, 2], [2, 3], [4, 4], num_classes=7, block=library.swin_transformer.SwinTransformerBlockV2,
        downsample_layer=library.swin_transformer.PatchMergingV2,
    ),
    "convnext": lambda library: library.ConvNeXt(
        [library.convnext.CNBlockConfig(8, 12, 2), library.convnext.CNBlockConfig(12, None, 1)], num_classes=7
    ),
    **{
        name: lambda library, name=name: library.get_model(name, weights=None, num_classes=7)  # type: ignore[misc]
        for name in (
            "resnet18", "alexnet", "squeezenet1_0", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
            "shufflenet_v2_x0_5", "regnet_y_400mf", "mnasnet0_5",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = lively(FAMILIES[name](torchvision_module("torchvision.models")))
    size = SIZE.get(name, 32)
    assert_replays_equal_full_runs(model, (3, size, size))
