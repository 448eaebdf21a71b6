"""What a network in low precision does last is in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.nodes import run
from prunescope.engine.ablation.tail import widen_tail

SHAPE = (3, 8, 8)


class TwiceTheSameLayer(nn.Module):
    """Its last layer is called before, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.same = nn.Conv2d(3, 5, 3), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.same(self.same(self.conv(x).mean((2, 3))).relu())


def pooled() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 8), nn.Flatten(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def layer_alone() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


def said(traced: fx.GraphModule, images: Tensor) -> Tensor:
    values = run(traced, images.bfloat16())
    return values[next(node for node in values if node.op == "output")]


NETWORKS: list[tuple[Callable[[], nn.Module], set[str]]] = [
    (pooled, {"4"}), (two_layers, {"4"}), (convolutions, set()), (layer_alone, {"1"}), (TwiceTheSameLayer, set()),
]  # fmt: skip


@pytest.mark.parametrize(("make", "wide"), NETWORKS, ids=lambda value: getattr(value, "__name__", ""))
def test_the_last_layer_is_wide_and_the_others_are_not(make: Callable[[], nn.Module], wide: set[str]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    images = torch.randn(6, *SHAPE)
    traced = capture(model, SHAPE).to(torch.bfloat16)
    whole = said(traced, images).float()
    widen_tail(traced)
    layers = {name: module for name, module in traced.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)}
    assert {name for name, module in layers.items() if module.weight.dtype is torch.float32} == wide
    found = said(traced, images).float()
    exact = model(images)
    assert (found - exact).abs().max() < 0.05 * exact.abs().max()
    assert (found - exact).square().mean() <= (whole - exact).square().mean() * (1.0 if wide else 1.5)


def test_logits_are_no_longer_rounded_to_eight_bits() -> None:
    torch.manual_seed(0)
    traced = capture(pooled().eval(), SHAPE).to(torch.bfloat16)
    widen_tail(traced)
    output = said(traced, torch.randn(6, *SHAPE))
    assert output.dtype is torch.float32
    assert not torch.equal(output, output.bfloat16().float())
