"""How a filter answers once colour or shape is taken out of what it sees."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.types import Array
from prunescope.data.split import Normalisation
from prunescope.engine.extremes import as_maps
from prunescope.engine.upto import output_of, values_at

#: Crop (h, w, C) in [0, 1] and its number in the batch -> crop of the same shape.
Change = Callable[[Array, int], Array]


def altered(images: Tensor, boxes: Tensor, change: Change) -> Tensor:
    """Images with what lies in each one's box changed; the rest stays.

    Args:
        images: uint8 (B, C, H, W).  boxes: int64 (B, 4): first row, last row, first column, last column.

    Returns:
        float32 (B, C, H, W), 0 to 255, not rounded.
    """
    result = images.float()
    for number, (first_row, last_row, first_column, last_column) in enumerate(boxes.tolist()):
        window = result[number, :, first_row : last_row + 1, first_column : last_column + 1]
        if window.numel():
            crop = change(window.permute(1, 2, 0).numpy().astype(np.float64) / 255, number)
            window.copy_(torch.from_numpy(crop * 255).permute(2, 0, 1))
    return result


@torch.inference_mode()
def answers(
    model: nn.Module,
    layer: str,
    images: Tensor,
    normalisation: Normalisation,
    places: tuple[Tensor, Tensor, Tensor],
    *,
    device: torch.device | str,
) -> Array:
    """Activations (B,) of one layer, for each image at its own (channels, rows, columns).

    Args:
        images: (B, C, H, W), 0 to 255, uint8 or float32 (which is changed).
    """
    x = normalisation(images.to(device)).contiguous(memory_format=torch.channels_last)
    return values_at(as_maps(output_of(model, layer, x), layer), *places).cpu().numpy()
