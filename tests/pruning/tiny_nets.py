"""A network and images small enough to train in a test, with everything that pruning must tell apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.seeds import torch_generator
from prunescope.data.split import Split


class Tiny(nn.Module):
    """Convolution, batch norm, convolution with bias, linear head: 351 prunable weights, 28 others."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 5, 2, stride=2, groups=1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv1(x)))
        return self.head(torch.relu(self.conv2(x)).mean((2, 3)))


PRUNABLE = ["conv1.weight", "conv2.weight", "head.weight"]


def tiny_net(seed: int = 0) -> Tiny:
    """Equal seeds give equal weights; also biases and batch norm's tensors are neither 0 nor 1."""
    net = Tiny()
    generator = torch_generator(seed, "tiny net")
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.5)
        net.norm.weight.abs_().add_(0.5)
        net.norm.running_var.abs_().add_(0.5)  # type: ignore[union-attr, operator]
    return net


def noise(count: int = 48, seed: int = 0) -> Split:
    """Images of noise in three classes that differ in one channel's brightness, so that there is something to learn."""
    generator = torch_generator(seed, "noise")
    labels = torch.arange(count) % 3
    images = torch.randint(0, 128, (count, 3, 6, 6), generator=generator)
    images[torch.arange(count), labels] += 64
    ids = np.array([f"n{i}" for i in range(count)])
    return Split(images.to(torch.uint8), labels, ids, ("r", "g", "b"))


def state(net: nn.Module) -> dict[str, Tensor]:
    """A copy of weights and buffers."""
    return {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bit by bit."""
    return set(a) == set(b) and all(torch.equal(a[name], b[name]) for name in a)
