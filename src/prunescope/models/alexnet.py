"""AlexNet for small images: large first filters, overlapping pooling, no norm."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from prunescope.models.small import initialise
from prunescope.models.zoo import models


class SmallAlexNet(nn.Module):
    """Five convolutions with ReLU, max pooling of 3x3 by 2 after the first, second and fifth, dropout, a linear layer.

    Modules are `features.conv1`, `features.relu1`, `features.pool1`, `features.conv2`, ..., `pool`, `dropout` and
    `classifier`. The last pooling is averaged to 2x2, so that images of other sizes fit.
    """

    #: Width and side of each convolution's filters; the first moves by 2, as AlexNet's by 4.
    PLAN = ((64, 7), (192, 5), (192, 3), (128, 3), (128, 3))

    def __init__(self, classes: int, channels: int, dropout: float) -> None:
        """A network for `channels` channels; `dropout` is the share of the last features dropped in training."""
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        width = channels
        for number, (filters, side) in enumerate(self.PLAN, 1):
            stride = 2 if number == 1 else 1
            layers[f"conv{number}"] = nn.Conv2d(width, filters, side, stride=stride, padding=side // 2)
            layers[f"relu{number}"] = nn.ReLU()
            if number in (1, 2, 5):
                layers[f"pool{number}"] = nn.MaxPool2d(3, stride=2, padding=1)
            width = filters
        self.features = nn.Sequential(layers)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(4 * width, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> logits (B, classes)."""
        return self.classifier(self.dropout(self.pool(self.features(x)).flatten(1)))


@models.register("alexnet_cifar")
def alexnet_cifar(classes: int, channels: int, dropout: float = 0.5) -> nn.Module:
    """AlexNet (Krizhevsky et al. 2012) scaled to images of 32x32: 64 first filters of 7x7, 192 second ones of 5x5.

    Filters of 11x11 of 227 pixels would be 1.6 of 32: what is kept is that a first filter is large enough to hold an
    edge, a grating or a patch of colour that can be looked at. No norm, one column, one linear layer.

    >>> sum(p.numel() for p in alexnet_cifar(10, 3).parameters())
    1022858
    """
    return SmallAlexNet(classes, channels, dropout)
