"""A network for tests, named in configs as a user would name their own."""

from __future__ import annotations

from torch import Tensor, nn


class Little(nn.Module):
    """Two convolutions, global pooling, a linear head."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1, stride=2)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(12, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.conv2(x))
        return self.head(self.pool(x).flatten(1))


def little(classes: int, channels: int) -> nn.Module:
    """The factory."""
    return Little(classes, channels)
