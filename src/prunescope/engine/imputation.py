"""Noisy linear imputation: missing pixels as weighted means of their neighbours (Rong et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from prunescope.core.errors import PrunescopeError

#: A residual so much smaller than at the start ends a system's iterations, and no more of them than this are made.
_TOLERANCE, _MOST = 1e-5, 500
#: Weight of a Jacobi step.
_DAMPED = 0.8


@torch.no_grad()
def imputed(x: Tensor, missing: Tensor) -> Tensor:
    """Images in which every missing pixel is the weighted mean of its up to eight neighbours, missing ones too.

    Weights are 1/6 beside and 1/12 across, divided by their sum at the border. That is one sparse symmetric system an
    image, solved by conjugate gradients with multigrid, for all images and channels at once; a system that is solved is
    put aside. An image then does not depend on which others are in the batch. Memory: about ten copies of x.

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
    return (known + _solved(hole, hole * _neighbours(known))).view(x.shape)


@dataclass(frozen=True)
class _Grid:
    """The equations on one grid: (own * v - sum over neighbours of v) in the holes, v = 0 elsewhere."""

    hole: Tensor
    own: Tensor

    @classmethod
    def pyramid(cls, hole: Tensor) -> list[_Grid]:
        """Ever coarser grids, on which a place is missing if all four finer ones are, as long as there are any."""
        found = [cls(hole, _neighbours(torch.ones_like(hole[:1])))]
        while min(hole.shape[1:]) > 2:
            hole = (_fours(hole) == 4).to(hole.dtype)
            if not bool(hole.any()):
                break
            found.append(cls(hole, _neighbours(torch.ones_like(hole[:1]))))
        return found

    def left(self, b: Tensor, v: Tensor) -> Tensor:
        """b less the equations at v."""
        return b - self.hole * (self.own * v - _neighbours(v))

    def smoothed(self, v: Tensor, residual: Tensor) -> Tensor:
        return v + _DAMPED * self.hole * residual / self.own


def _solved(hole: Tensor, b: Tensor) -> Tensor:
    """Conjugate gradients, each step led by one multigrid cycle, (R, H, W)."""
    result, rows, grids = torch.zeros_like(b), torch.arange(len(b), device=b.device), _Grid.pyramid(hole)
    value, residual = torch.zeros_like(b), b
    direction = scaled = _cycle(grids, residual)
    size = _dot(residual, scaled)
    enough = _TOLERANCE**2 * size
    for _ in range(_MOST):
        going = size > enough
        count = int(going.sum())
        if count == 0:
            break
        if count < 0.7 * len(rows):
            on = going.flatten()
            result[rows[~on]] = value[~on]
            rows, enough, going, size = rows[on], enough[on], going[on], size[on]
            value, residual, direction = value[on], residual[on], direction[on]
            grids = _Grid.pyramid(grids[0].hole[on])
        step = -grids[0].left(torch.zeros_like(direction), direction)
        length = (size / _dot(step, direction).clamp_min(1e-30)).where(going, 0.0)
        value = value.addcmul(length, direction)
        residual = residual.addcmul(-length, step)
        scaled = _cycle(grids, residual)
        fresh = _dot(residual, scaled)
        direction = scaled.addcmul(fresh / size.clamp_min(1e-30), direction)
        size = fresh.where(going, size)
    result[rows] = value
    return result


def _cycle(grids: list[_Grid], b: Tensor) -> Tensor:
    """One V-cycle from 0: a damped Jacobi step, the rest from the coarser grid, and a step again; it is symmetric."""
    here, *coarser = grids
    value = here.smoothed(torch.zeros_like(b), b)
    if coarser:
        rest = _cycle(coarser, coarser[0].hole * _fours(here.left(b, value)))
        big = rest.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, : b.shape[1], : b.shape[2]]
        value = value + here.hole * big
    return here.smoothed(value, here.left(b, value))


def _fours(values: Tensor) -> Tensor:
    """Sums over blocks of 2 x 2, (R, H, W) -> (R, ceil(H / 2), ceil(W / 2)); there is 0 behind an odd end."""
    padded = F.pad(values, (0, values.shape[2] % 2, 0, values.shape[1] % 2))
    rows = padded[:, ::2] + padded[:, 1::2]
    return rows[:, :, ::2] + rows[:, :, 1::2]


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
