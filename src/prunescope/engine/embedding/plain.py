"""Embeddings that need no network: colours, and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Split
from prunescope.engine.embedding.base import Embedding, embeddings, pixels


@embeddings.register("colour")
@dataclass(frozen=True)
class Colour(Embedding):
    """Which colours an image has, wherever they are: the square root of its histogram, over all channels together.

    A control: units that a person would call by a colour score high, and no others.

    Attributes:
        bins: of each channel; the histogram has bins ** channels.
    """

    bins: int = 4
    summary: ClassVar[str] = "histogram of colours, without places (a control)"

    def __post_init__(self) -> None:
        if not 2 <= self.bins <= 16:
            raise PrunescopeError(f"colour: bins must be 2 to 16, got {self.bins}")

    def vectors(self, split: Split, *, batch_size: int, device: torch.device | str) -> Tensor:
        channels = split.shape[0]
        if self.bins**channels > 1 << 16:
            raise PrunescopeError(f"colour: {self.bins} bins of {channels} channels are too many; give fewer bins")
        return torch.cat([self._histograms(images).cpu() for images in pixels(split, batch_size, device)])

    def _histograms(self, images: Tensor) -> Tensor:
        images_count, channels = images.shape[:2]
        level = (images * 255).round_().mul_(self.bins / 256).long().flatten(2)
        powers = self.bins ** torch.arange(channels, device=images.device)
        cell = (level * powers[:, None]).sum(1)
        counts = torch.zeros(images_count, self.bins**channels, device=images.device)
        counts.scatter_add_(1, cell, torch.ones_like(cell, dtype=torch.float32))
        return (counts / cell.shape[1]).sqrt()


@embeddings.register("label")
@dataclass(frozen=True)
class Label(Embedding):
    """Alike is what is of one class. A control: how much of a score is that units are for one class."""

    scaling: ClassVar[Literal["centred", "unit", "none"]] = "none"
    kept: ClassVar[bool] = False
    summary: ClassVar[str] = "alike is what is of one class (a control)"

    def vectors(self, split: Split, *, batch_size: int, device: torch.device | str) -> Tensor:
        return F.one_hot(split.labels, len(split.classes)).float()
