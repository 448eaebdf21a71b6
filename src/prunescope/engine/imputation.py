"""Noisy linear imputation: missing pixels as weighted means of their neighbours (Rong et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError

#: A residual so much smaller than at the start ends a system's iterations, and no more of them than this are made.
_TOLERANCE, _MOST = 1e-5, 5000


@torch.no_grad()
def imputed(x: Tensor, missing: Tensor) -> Tensor:
    """Images in which every missing pixel is the weighted mean of its up to eight neighbours, missing ones too.

    Weights are 1/6 beside and 1/12 across, divided by their sum at the border. That is one sparse symmetric system an
    image, solved by conjugate gradients, for all images and channels at once; a system that is solved is put aside. An
    image then does not depend on which others are in the batch. Memory: about eight copies of x.

    Args:
        x: (R, C, H, W).
        missing: bool (R, H, W); at least one pixel of each image must be there.

    Raises:
        PrunescopeError: an image without any pixel left.
    """
    if bool(missing.flatten(1).all(1).any()):
        raise PrunescopeError("imputation: an image has no pixel left to start from")
    hole = missing[:, None].expand(x.shape).flatten(0, 1).to(x.dtype)
    known = x.flatten(0, 1) * (1 - hole)
    own = _neighbours(torch.ones_like(hole[:1]))
    solved = _conjugate_gradients(hole, own, hole * _neighbours(known))
    return (known + solved).view(x.shape)


def _conjugate_gradients(hole: Tensor, own: Tensor, b: Tensor) -> Tensor:
    """v with own * v - (sum over neighbours) = b in the holes and 0 elsewhere, (R, H, W); divided by `own` before."""
    result, rows = torch.zeros_like(b), torch.arange(len(b), device=b.device)
    value, residual = torch.zeros_like(b), b
    direction = residual / own
    size = _dot(residual, direction)
    enough = _TOLERANCE**2 * size
    for _ in range(_MOST):
        going = size > enough
        count = int(going.sum())
        if count == 0:
            break
        if count < 0.7 * len(rows):
            on = going.flatten()
            result[rows[~on]] = value[~on]
            rows, hole, enough, going = rows[on], hole[on], enough[on], going[on]
            value, residual, direction, size = value[on], residual[on], direction[on], size[on]
        step = hole * (own * direction - _neighbours(direction))
        length = (size / _dot(step, direction).clamp_min(1e-30)).where(going, 0.0)
        value = value.addcmul(length, direction)
        residual = residual.addcmul(-length, step)
        scaled = residual / own
        fresh = _dot(residual, scaled)
        direction = scaled.addcmul(fresh / size.clamp_min(1e-30), direction)
        size = fresh.where(going, size)
    result[rows] = value
    return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("rhw,rhw->r", a, b)[:, None, None]


def _neighbours(values: Tensor) -> Tensor:
    """Weighted sum over the eight neighbours inside the image, (R, H, W)."""
    down = 2 * values
    down[:, 1:] += values[:, :-1]
    down[:, :-1] += values[:, 1:]
    both = 2 * down
    both[:, :, 1:] += down[:, :, :-1]
    both[:, :, :-1] += down[:, :, 1:]
    return (both - 4 * values).div_(12)
