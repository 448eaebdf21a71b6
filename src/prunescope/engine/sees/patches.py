"""Pictures of what a filter sees: the pixels in its receptive field, and first-layer kernels as tiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prunescope.core.types import Array

#: Shown where a receptive field leaves the image.
OUTSIDE = 128


def frame_of(fields: Tensor) -> int:
    """Side of a square that holds the largest receptive field of a layer, from its boxes (h, w, 4)."""
    heights, widths = fields[..., 1] - fields[..., 0] + 1, fields[..., 3] - fields[..., 2] + 1
    return max(1, int(heights.max()), int(widths.max()))


def patches(images: Tensor, boxes: Tensor, frame: int, side: int) -> Array:
    """The pixels within each image's box, uint8 (B, side, side, 3).

    A box that is smaller than the frame is one that was cut at the image's border: it lies against the side of the
    frame that the image reaches, and the rest is mid-grey. Enlarged without smoothing, reduced with.

    Args:
        images: uint8 (B, 1 or 3, H, W).
        boxes: int64 (B, 4): first row, last row, first column, last column.
        frame: side of the frame in pixels (`frame_of`).
        side: of the result.
    """
    framed = torch.full((len(images), 3, frame, frame), OUTSIDE, dtype=torch.uint8)
    for into, image, box in zip(framed, images, boxes.tolist(), strict=True):
        first_row, last_row, first_column, last_column = box
        crop = image[:, first_row : last_row + 1, first_column : last_column + 1]
        top = _offset(first_row, last_row, image.shape[1], frame)
        left = _offset(first_column, last_column, image.shape[2], frame)
        into[:, top : top + crop.shape[1], left : left + crop.shape[2]] = crop
    resized = framed.float()
    if frame > side:
        resized = F.interpolate(resized, (side, side), mode="bilinear", antialias=True)
    elif frame < side:
        resized = F.interpolate(resized, (side, side), mode="nearest-exact")
    return resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def _offset(first: int, last: int, size: int, frame: int) -> int:
    """Where in the frame a stretch of pixels starts: cut at its start, it ends with the frame; cut at its end, it
    starts with it."""
    spare = frame - (last - first + 1)
    at_start, at_end = first == 0, last == size - 1
    if at_start == at_end:
        return spare // 2
    return spare if at_start else 0


def kernel_tiles(kernels: Array, std: Sequence[float]) -> Array:
    """First-layer kernels (F, 3, h, w) as uint8 pictures (F, h, w, 3): grey is 0, each scaled by its largest weight.

    Args:
        std: by which the images' channels are divided before the network; folded in.
    """
    weights = kernels / np.reshape(std, (3, 1, 1)).astype(np.float64)
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    tiles = 127.5 + 127.5 * weights / np.where(largest > 0, largest, 1)
    return np.moveaxis(np.round(tiles), 1, -1).astype(np.uint8)
