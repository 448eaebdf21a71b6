"""One vector per image, of whatever a layer gives."""

from __future__ import annotations

from torch import Tensor

from prunescope.core.errors import PrunescopeError


def vectors(activation: Tensor, layer: str = "", *, units_last: bool = False) -> Tensor:
    """One vector per image: maps (B, C, h, w) are averaged over positions, tokens (B, T, C) over tokens.

    Args:
        units_last: maps are (B, h, w, C).

    >>> vectors(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3])
    """
    if activation.ndim == 4:
        return activation.mean((1, 2) if units_last else (2, 3))
    if activation.ndim == 3:
        return activation.mean(1)
    if activation.ndim == 2:
        return activation
    raise PrunescopeError(f"layer {layer!r} gives {tuple(activation.shape)}, not maps, tokens or a vector per image")
