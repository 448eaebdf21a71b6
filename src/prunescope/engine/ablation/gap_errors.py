"""How far predictions of gaps between logits were off, unit by unit, and what may be trusted because of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

#: A gap is trusted when it is larger than so many times the unit's largest error.
SAFETY = 2.0


class GapErrors:
    """Errors of gaps seen so far, each as a multiple of its *size*: how much the guess was about.

    Attributes:
        surprises: how many were larger than the tolerance before them.
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        self._worst = {layer: torch.zeros(count) for layer, count in channels.items()}
        self._squares, self._seen = dict.fromkeys(channels, 0.0), dict.fromkeys(channels, 0)
        self.surprises = 0

    def tolerance(self, layer: str, channel: Tensor) -> Tensor:
        """(n,) multiples of their sizes that gaps in worlds of these channels must exceed; infinite before any error.

        To a unit's own largest error comes the layer's root mean square: a unit that never answered so far may yet.
        """
        if not self._seen[layer]:
            return torch.full(channel.shape, torch.inf)
        typical = (self._squares[layer] / self._seen[layer]) ** 0.5
        return SAFETY * (self._worst[layer][channel] + typical)

    def learn(self, layer: str, channel: Tensor, error: Tensor, size: Tensor) -> None:
        """Take note of errors (n, gaps), and sizes alike, in worlds of these channels (n,)."""
        share = (error / size).amax(1)
        self.surprises += int((share > self.tolerance(layer, channel)).sum())
        self._worst[layer].scatter_reduce_(0, channel, share, "amax")
        self._squares[layer] += float(share.square().sum())
        self._seen[layer] += len(share)
