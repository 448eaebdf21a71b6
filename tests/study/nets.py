"""A network and data for tests, named in configs as a user would name their own."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from prunescope.data.load import load_data
from prunescope.data.split import Dataset


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


def bare() -> Dataset:
    """Images with their classes, and nothing else known of them."""
    data = load_data({"name": "shapes", "size": 16, "train": 64, "val": 32, "test": 32})
    nothing = {"concepts": None, "concept_names": (), "masks": None, "segments": None}
    return replace(data, name="bare", **{name: replace(data[name], **nothing) for name in ("train", "val", "test")})  # type: ignore[arg-type]
