"""Random architectures with all that makes channels hang together: sums, concatenations, groups, gates, norms."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

SHAPE = (3, 8, 8)


class Gate(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(width, 3, 1), nn.Conv2d(3, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Residual(nn.Module):
    """Two convolutions beside the identity, or beside a 1x1 convolution where the width changes."""

    def __init__(self, width: int, out: int, norm: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(width, 5, 3, padding=1), nn.Conv2d(5, out, 3, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(out) if norm else nn.Identity()
        self.short = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.two(F.silu(self.one(x)))) + self.short(x))


class Branches(nn.Module):
    """Two branches of other widths, concatenated, with one norm over both."""

    def __init__(self, width: int, left: int, right: int) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(width, left, 1), nn.Conv2d(width, right, 3, padding=1)
        self.norm = nn.BatchNorm2d(left + right)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.norm(torch.cat([self.left(x), self.right(x)], 1)))


class Net(nn.Module):
    """Blocks one after the other, then a head on flattened maps or on their means."""

    def __init__(self, blocks: list[tuple[Any, ...]], flat: bool) -> None:
        super().__init__()
        width, made = 4, [nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))]
        for kind, *sizes in blocks:
            if kind == "residual":
                made.append(Residual(width, sizes[0], sizes[1]))
                width = sizes[0]
            elif kind == "branches":
                made.append(Branches(width, *sizes))
                width = sum(sizes)
            elif kind == "grouped":
                made.append(
                    nn.Sequential(nn.Conv2d(width, 4, 1), nn.Conv2d(4, 8, 3, padding=1, groups=sizes[0]), nn.PReLU(8))
                )
                width = 8
            elif kind == "depthwise":
                made.append(nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Hardswish()))
            elif kind == "gate":
                made.append(Gate(width))
        self.blocks, self.flat = nn.Sequential(*made), flat
        self.head = nn.Sequential(nn.Linear(width * 4 if flat else width, 6), nn.GELU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 8, 8) -> (B, 3)."""
        x = F.max_pool2d(self.blocks(x), 4)
        return self.head(x.flatten(1) if self.flat else x.mean((2, 3)))


block = st.one_of(
    st.tuples(st.just("residual"), st.integers(2, 7), st.booleans()),
    st.tuples(st.just("branches"), st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.just("grouped"), st.sampled_from([2, 4])),
    st.tuples(st.just("depthwise")),
    st.tuples(st.just("gate")),
)


@st.composite
def networks(draw: Any) -> nn.Module:
    """A network in eval mode in which no bias, scale or statistic is 0 or 1."""
    torch.manual_seed(draw(st.integers(0, 99)))
    return lively(Net(draw(st.lists(block, max_size=5)), draw(st.booleans())))


def lively(model: nn.Module) -> nn.Module:
    """Norms, biases and layer scales as after training, so that nothing cancels by chance; in eval mode."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if "running_var" in name:
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() <= 1 or "layer_scale" in name:
                tensor.normal_(0.3, 0.3)
            elif bool((tensor == 0).all()):
                tensor.normal_(0, 0.05)
    return model.eval()
