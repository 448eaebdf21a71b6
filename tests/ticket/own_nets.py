"""Networks of the user's own, named in configs as `tests.ticket.own_nets:vision_transformer`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module


def vision_transformer(classes: int) -> nn.Module:
    """torchvision's, with two small blocks, for images of 16 pixels."""
    models = torchvision_module("torchvision.models.vision_transformer")
    return models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=classes
    )


class Branching(nn.Module):
    """Control flow on values, which torch.fx cannot follow."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        if x.mean() > 1e9:
            x = -x
        return self.head(torch.relu(self.two(torch.relu(self.one(x)))).mean((2, 3)))


def branching(classes: int) -> nn.Module:
    """What is captured by hooks only."""
    return Branching(classes)


class Detached(nn.Module):
    """What lies behind the first layer has no gradient with respect to the image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x)).detach()
        return self.head(torch.relu(self.two(x)).mean((2, 3)))


def detached(classes: int) -> nn.Module:
    """Pictures can be made for its first layer only."""
    return Detached(classes)
