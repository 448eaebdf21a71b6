"""How far predictions of gaps between logits were off, unit by unit, and what may be trusted because of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

#: A gap is trusted when it is larger than so many times the unit's largest error.
SAFETY = 3.0


class GapErrors:
    """Errors seen so far, each as a multiple of its *size*: how much the guess was about.

    Attributes:
        surprises: how many were larger than the tolerance before them.
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        self._worst = {layer: torch.zeros(count) for layer, count in channels.items()}
        self._squares, self._seen = dict.fromkeys(channels, 0.0), dict.fromkeys(channels, 0)
        self.surprises = 0

    def tolerance(self, layer: str, channel: Tensor, size: Tensor) -> Tensor:
        """(n,) gaps in worlds of these channels and sizes (n,); infinite as long as nothing was seen.

        To a unit's own largest error comes the layer's root mean square: a unit that never answered so far may yet.
        """
        if not self._seen[layer]:
            return torch.full_like(size, torch.inf)
        typical = (self._squares[layer] / self._seen[layer]) ** 0.5
        return SAFETY * (self._worst[layer][channel] + typical) * size

    def learn(self, layer: str, channel: Tensor, error: Tensor, size: Tensor) -> None:
        """Take note of errors (n,) in worlds of these channels and sizes (n,)."""
        self.surprises += int((error > self.tolerance(layer, channel, size)).sum())
        share = error / size
        self._worst[layer].scatter_reduce_(0, channel, share, "amax")
        self._squares[layer] += float(share.square().sum())
        self._seen[layer] += len(error)
