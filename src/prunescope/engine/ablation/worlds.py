"""Values in networks without a unit, told as differences from the values in the whole network.

A *world* is one image in a network without one unit; many are computed at once. At first only one channel of a value
differs (`Single`), behind a layer that reads it all channels do (`Full`), and behind a concatenation a block of them
does (`Part`). Nothing is computed of what does not differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Worlds:
    """Which image and which unit each of n worlds has.

    Attributes:
        channel: (n,) the unit: index of a channel of the layer, in runs of equal ones.
        image: (n,) position in the chunk of images.
        runs: (channel, first world, last world + 1) of every run.
        whole: every run has all images of the chunk, in their order.
        images: how many images the chunk has.
    """

    channel: Tensor
    image: Tensor
    runs: tuple[tuple[int, int, int], ...]
    whole: bool
    images: int

    @classmethod
    def grid(cls, channels: Tensor, images: int) -> Worlds:
        """Every image without every one of these channels."""
        runs = tuple((int(c), i * images, (i + 1) * images) for i, c in enumerate(channels.tolist()))
        image = torch.arange(images, device=channels.device).repeat(len(channels))
        return cls(channels.repeat_interleave(images), image, runs, True, images)

    @classmethod
    def pairs(cls, channel: Tensor, image: Tensor, images: int) -> Worlds:
        """Single pairs, sorted by channel."""
        values, counts = channel.unique_consecutive(return_counts=True)
        ends = counts.cumsum(0).tolist()
        starts = [0, *ends][:-1]
        return cls(channel, image, tuple(zip(values.tolist(), starts, ends, strict=True)), False, images)

    @property
    def count(self) -> int:
        return len(self.channel)

    def of(self, base: Tensor) -> Tensor:
        """A copy of the whole network's value for every world: (images, ...) to (n, ...)."""
        if self.whole and len(self.runs) == 1:
            return base.clone(memory_format=torch.preserve_format)
        if self.whole:
            repeated = base.unsqueeze(0).expand(len(self.runs), *base.shape)
            out = empty(self.count, base)
            out.view(len(self.runs), *base.shape).copy_(repeated)
            return out
        return rows(base, self.image)

    def channel_of(self, base: Tensor, offset: int, axis: int, width: int = 1) -> Tensor:
        """A copy of every world's own channel of the whole value: (n, 1, ...) or, of blocks, (n, ..., width)."""
        found = units(base, offset, axis, width)[self.image, self.channel]
        return found.unsqueeze(1) if axis == 1 else found

    def add_(self, content: Tensor, base: Tensor) -> Tensor:
        """Add the whole network's value to every world's, in place."""
        if self.whole:
            content.view(len(self.runs), self.images, *content.shape[1:]).add_(base)
            return content
        return content.add_(rows(base, self.image))


@dataclass(frozen=True, eq=False)
class Single:
    """One channel differs.

    Attributes:
        content: (n, 1, ...) or, along the last axis, (n, ..., width): what it holds instead. None: zeros.
        offset: index of the first number of the layer's first channel in this value.
        axis: of the channels, 1 or -1.
        width: numbers of a channel side by side on the last axis: more than one of an attention head, and where maps
            were flattened.
    """

    content: Tensor | None
    offset: int
    axis: int
    width: int = 1

    def lies_like(self, other: Single) -> bool:
        """Whether both are of the same channels of a value."""
        return (self.offset, self.axis, self.width) == (other.offset, other.axis, other.width)


@dataclass(frozen=True, eq=False)
class Part:
    """Channels `low` to `high` (of axis 1) differ; content (n, high - low, ...), owned by no one else."""

    content: Tensor
    low: int
    high: int


@dataclass(frozen=True, eq=False)
class Full:
    """All may differ: a tensor (n, ...), or a structure of them."""

    content: Any


World: TypeAlias = Single | Part | Full


def units(value: Tensor, offset: int, axis: int, width: int = 1) -> Tensor:
    """A view by channel of a value, from a layer's first channel on: (rows, channels, ...).

    Of maps (axis 1): (rows, channels, H, W). Of blocks along the last axis: (rows, channels, ..., width).
    """
    if axis == 1:
        return value[:, offset:]
    count = (value.shape[-1] - offset) // width
    return value[..., offset : offset + count * width].unflatten(-1, (count, width)).movedim(-2, 1)


def empty(count: int, like: Tensor) -> Tensor:
    """Room for so many rows like those of a tensor, in its memory format."""
    layout = torch.channels_last if like.dim() == 4 and like.is_contiguous(memory_format=torch.channels_last) else None
    shape = (count, *like.shape[1:])
    if layout is None:
        return like.new_empty(shape)
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)


def rows(base: Tensor, index: Tensor) -> Tensor:
    """A copy of some rows, in the tensor's memory format, which indexing would not keep."""
    if base.dim() == 4 and base.is_contiguous(memory_format=torch.channels_last):
        return base.permute(0, 2, 3, 1).index_select(0, index).permute(0, 3, 1, 2)
    return base.index_select(0, index)


def below(count: int) -> int:
    """The largest power of two that is not above a number."""
    return 1 << (count.bit_length() - 1)


def filled(start: int, stop: int, step: int) -> Tensor:
    """Indices from `start` to `stop`, the last one again and again until there are a multiple of `step`.

    Convolutions are compiled for each number of images that they meet, which takes longer than running them.
    """
    count = -(-(stop - start) // step) * step
    return torch.arange(start, start + count).clamp_(max=stop - 1)
