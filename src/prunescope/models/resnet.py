"""Residual networks for small images: ResNet-8, -20 and -56."""

from __future__ import annotations

from torch import Tensor, nn

from prunescope.models.small import initialise
from prunescope.models.zoo import models


class Block(nn.Module):
    """Two 3x3 convolutions with batch norm, added to their input.

    Where the shape changes the shortcut is a 1x1 convolution with batch norm (option B of He et al. 2016; their
    CIFAR networks pad with zeros, option A), as in open_lth. It is computed first, so that `conv2` is the last
    convolution that runs, also in networks of one block a stage.
    """

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            projection = nn.Conv2d(width_in, width, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(width))
        self.conv1 = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in, H, W) -> (B, width, H / stride, W / stride)."""
        shortcut = self.shortcut(x)
        out = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(out)) + shortcut)


class SmallResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels; the depth is 6 x blocks + 2 (He et al. 2016, section 4.2).

    Modules are `conv1`, `bn1`, `relu1`, `stage1.0.conv1` ... `stage3.N.relu2`, `pool` and `classifier`.
    """

    def __init__(self, classes: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.stage1 = _stage(16, 16, blocks, 1)
        self.stage2 = _stage(16, 32, blocks, 2)
        self.stage3 = _stage(32, 64, blocks, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(64, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> logits (B, classes)."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.stage3(self.stage2(self.stage1(out)))
        return self.classifier(self.pool(out).flatten(1))


def _stage(width_in: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = Block(width_in, width, stride)
    return nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))


@models.register("resnet8")
def resnet8(classes: int, channels: int) -> nn.Module:
    """One block a stage: 78 thousand parameters.

    >>> sum(p.numel() for p in resnet8(10, 3).parameters())
    78042
    """
    return SmallResNet(classes, channels, 1)


@models.register("resnet20")
def resnet20(classes: int, channels: int) -> nn.Module:
    """Three blocks a stage: 0.27 million parameters.

    >>> sum(p.numel() for p in resnet20(10, 3).parameters())
    272474
    """
    return SmallResNet(classes, channels, 3)


@models.register("resnet56")
def resnet56(classes: int, channels: int) -> nn.Module:
    """Nine blocks a stage: 0.86 million parameters.

    >>> sum(p.numel() for p in resnet56(10, 3).parameters())
    855770
    """
    return SmallResNet(classes, channels, 9)
