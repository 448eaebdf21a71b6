"""Random crops, flips, rotations and colours for whole batches of uint8 images, each image with its own draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prunescope.core.errors import PrunescopeError

_GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma, as in torchvision


@dataclass(frozen=True)
class Augmentation:
    """What may happen to a training image. The default does nothing.

    Attributes:
        crop_padding: pixels of black put around the image before a crop of its own size is taken at random.
        flip, vertical_flip: mirror left-right, top-bottom, each with probability 1/2.
        rotation: largest angle in degrees, 0 to 180, either way; what turns in from outside is mirrored.
        brightness, contrast, saturation: 0 to 1; the factor lies in 1 - value .. 1 + value. Applied in this order.
    """

    crop_padding: int = 0
    flip: bool = False
    vertical_flip: bool = False
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self) -> None:
        if self.crop_padding < 0:
            raise PrunescopeError(f"augment: crop_padding must be at least 0 pixels, got {self.crop_padding}")
        if not 0 <= self.rotation <= 180:
            raise PrunescopeError(f"augment: rotation must lie in 0 .. 180 degrees, got {self.rotation}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise PrunescopeError(f"augment: {name} must lie in 0 .. 1, got {getattr(self, name)}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A changed copy (or the same tensor, when nothing is asked for) of uint8 images (B, C, H, W).

        Random numbers are drawn on the generator's device, the CPU, so that every device sees the same draws.
        """
        n, device = len(images), images.device

        def uniform(limit: float) -> Tensor:
            return ((torch.rand(n, generator=generator) * 2 - 1) * limit).to(device)

        if self.rotation:
            images = rotate(images, uniform(self.rotation))
        if self.crop_padding:
            corner = torch.randint(2 * self.crop_padding + 1, (2, n), generator=generator).to(device)
            images = crop(images, corner[0], corner[1], self.crop_padding)
        if self.flip:
            images = mirror(images, (torch.rand(n, generator=generator) < 0.5).to(device), axis=3)
        if self.vertical_flip:
            images = mirror(images, (torch.rand(n, generator=generator) < 0.5).to(device), axis=2)
        if self.brightness or self.contrast or self.saturation:
            factors = (1 + uniform(limit) for limit in (self.brightness, self.contrast, self.saturation))
            images = recolour(images, *factors)
        return images


def crop(images: Tensor, top: Tensor, left: Tensor, padding: int) -> Tensor:
    """Windows of the images' own size (B, C, H, W) out of zero-padded ones; corners int (B,) in 0 .. 2 * padding."""
    height, width = images.shape[2:]
    padded = F.pad(images, (padding, padding, padding, padding))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: every window of every image
    return windows[torch.arange(len(images), device=images.device), :, top, left]


def mirror(images: Tensor, which: Tensor, axis: int) -> Tensor:
    """Mirror the images at bool (B,) along axis 2 (top-bottom) or 3 (left-right)."""
    return torch.where(which.view(-1, 1, 1, 1), images.flip(axis), images)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn each image about its middle, counter-clockwise; bilinear; the outside is the image mirrored."""
    height, width = images.shape[2:]
    angle = degrees.double() * (math.pi / 180)
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [cos, -sin * height / width, zero, sin * width / height, cos, zero]
    theta = torch.stack(rows, 1).view(-1, 2, 3).float()
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    turned = F.grid_sample(images.float(), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return turned.round_().clamp_(0, 255).to(torch.uint8)


def recolour(images: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Scale brightness, then contrast about the mean grey, then saturation, by factors (B,); 1 changes nothing.

    Saturation needs three channels; images of another number of channels keep theirs.
    """
    scaled = (images.float() * brightness.view(-1, 1, 1, 1)).clamp_(0, 255)
    middle = _grey(scaled).mean(dim=(1, 2, 3), keepdim=True)
    scaled = torch.lerp(middle, scaled, contrast.view(-1, 1, 1, 1)).clamp_(0, 255)
    if images.shape[1] == 3:
        scaled = torch.lerp(_grey(scaled), scaled, saturation.view(-1, 1, 1, 1)).clamp_(0, 255)
    return scaled.round_().to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = images.split(1, dim=1)
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue
