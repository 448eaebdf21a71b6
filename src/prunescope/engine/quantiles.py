"""Exact upper quantiles of every unit over all images and positions, in one pass and bounded memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError

#: Units that range over less than this, or this share of their size, are constant.
_ABSOLUTE, _RELATIVE = 1e-8, 1e-6


class UpperQuantiles:
    """The activation that each unit of one layer exceeds at a given share of all images and positions.

    Keeps the largest values of each unit, one more than lie above: `quantile` x positions x units numbers, so that the
    answer is that of a full sort.

    Args:
        name: of the layer, for messages.
        quantile: the share.
        images: of the whole pass, known beforehand.
    """

    def __init__(self, name: str, quantile: float, images: int) -> None:
        self.name, self.quantile, self.images, self.above = name, quantile, images, 0
        self.kept: Tensor | None = None  # (U, up to above + 1)
        self.range: Tensor | None = None  # (2, U, h, w): minus the smallest, and the largest activation at each place

    def add(self, maps: Tensor) -> None:
        """A batch of maps (B, U, h, w), float32.

        Raises:
            PrunescopeError: values that are not finite, or so few positions that none lies above.
        """
        bounds = torch.stack([-maps.amin(0), maps.amax(0)])
        if not bool(bounds.isfinite().all()):
            raise PrunescopeError(f"activations of layer {self.name!r} are not finite; are the weights?")
        self.range = bounds if self.range is None else torch.maximum(self.range, bounds)
        self.above = self._count(maps)
        values = maps.transpose(0, 1).flatten(1)
        if self.kept is not None and self.kept.shape[1] > self.above:
            # Few of a later batch are still larger than the smallest that is kept: only these can come in.
            most = int((values > self.kept.amin(1, keepdim=True)).sum(1).max())
            if not most:
                return
            values = values.topk(most, sorted=False).values
        if self.kept is not None:
            values = torch.cat([self.kept, values], 1)
        if values.shape[1] > self.above + 1:
            values = values.topk(self.above + 1, sorted=False).values
        self.kept = values.clone() if self.kept is None else values

    def _count(self, maps: Tensor) -> int:
        """How many of a unit's values lie above."""
        positions = self.images * maps.shape[2] * maps.shape[3]
        count = math.floor(self.quantile * positions + 1e-9)
        if count < 1:
            raise PrunescopeError(
                f"dissection: of {positions} positions (images x places) of layer {self.name!r} none lies above the "
                f"quantile {self.quantile:g}; take at least {math.ceil(1 / self.quantile)}, or a larger quantile"
            )
        return count

    def thresholds(self) -> Tensor:
        """(U,): half-way between the smallest value that lies above and the largest that does not, so that rounding in
        a second pass changes nothing."""
        least, last = self._ends()
        return last + (least - last) / 2

    def tied(self) -> Tensor:
        """Bool (U,): the values on both sides are the same, so that no threshold leaves that share above it."""
        least, last = self._ends()
        return least <= last

    def constant(self) -> Tensor:
        """Bool (U,): no image changes the unit anywhere: dead. Of a single image: all places are alike."""
        assert self.range is not None
        least, most, places = -self.range[0], self.range[1], (1, 2)
        room = _ABSOLUTE + _RELATIVE * self.range.abs().amax((0, 2, 3))
        if self.images == 1:
            return most.amax(places) - least.amin(places) <= room
        return (most - least).amax(places) <= room

    def _ends(self) -> tuple[Tensor, Tensor]:
        """The `above`-th largest value and the next, (U,) each."""
        assert self.kept is not None
        ends = self.kept.topk(self.above + 1).values[:, -2:]
        return ends[:, 0], ends[:, 1]
