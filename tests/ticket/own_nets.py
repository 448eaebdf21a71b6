"""A network of the user's own, named in configs as `tests.ticket.own_nets:vision_transformer`."""

from __future__ import annotations

from torch import nn

from prunescope.core.compat import torchvision_module


def vision_transformer(classes: int) -> nn.Module:
    """torchvision's, with two small blocks, for images of 16 pixels."""
    models = torchvision_module("torchvision.models.vision_transformer")
    return models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=classes
    )
