"""Small plain networks for small images: a three-layer CNN and VGG-11 with batch norm."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from prunescope.models.zoo import models


def initialise(model: nn.Module) -> None:
    """Convolutions Kaiming-normal over the fan-in (He et al. 2015, eq. 10); everything else as torch has it."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class PlainCNN(nn.Module):
    """Convolutions of 3x3 with batch norm and ReLU, pooled by 2 where asked, then global average and a linear layer.

    Modules are `features.conv1`, `features.bn1`, `features.relu1`, (`features.pool1`), ... and `classifier`.
    """

    def __init__(self, classes: int, channels: int, plan: tuple[int | str, ...]) -> None:
        """A network whose `plan` is a tuple of widths, with "pool" where the image is halved."""
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        width, number = channels, 0
        for item in plan:
            if isinstance(item, str):
                layers[f"pool{number}"] = nn.MaxPool2d(2)
                continue
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(width, item, 3, padding=1, bias=False)
            layers[f"bn{number}"] = nn.BatchNorm2d(item)
            layers[f"relu{number}"] = nn.ReLU()
            width = item
        self.features = nn.Sequential(layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> logits (B, classes)."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


@models.register("small_cnn")
def small_cnn(classes: int, channels: int, width: int = 32) -> nn.Module:
    """Three convolutions of `width` (32), twice and four times as many channels, halved after the first two.

    The last convolution sees a quarter of the image's side: 8x8 heat maps on 32x32 images.

    >>> sum(p.numel() for p in small_cnn(10, 3).parameters())
    94762
    """
    return PlainCNN(classes, channels, (width, "pool", 2 * width, "pool", 4 * width))


@models.register("vgg11")
def vgg11(classes: int, channels: int) -> nn.Module:
    """VGG-11 (Simonyan & Zisserman 2015, configuration A) with batch norm and one linear layer, as used on CIFAR.

    The last of the five poolings is the global average. Images need at least 16x16 pixels.

    >>> sum(p.numel() for p in vgg11(10, 3).parameters())
    9228362
    """
    plan = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512)
    return PlainCNN(classes, channels, plan)
