"""A network whose layers try to break out of the page."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

#: No dots: PyTorch allows none in the name of a module.
LAYER = "</script><script>broken=1</script>"
IMAGE = '"><img src=x onerror=broken=1>'


def evil(classes: int, channels: int) -> nn.Module:
    """Two convolutions and a head."""
    return nn.Sequential(
        OrderedDict({
            IMAGE: nn.Conv2d(channels, 8, 3, padding=1), "relu": nn.ReLU(),
            LAYER: nn.Conv2d(8, 12, 3, padding=1, stride=2), "again": nn.ReLU(),
            "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": nn.Linear(12, classes),
        })
    )  # fmt: skip
