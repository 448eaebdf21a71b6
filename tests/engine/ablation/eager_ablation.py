"""The slow, obvious way to take units out: a network that says by hand where they are read, and hooks that write there.

Nothing here knows of torch.fx, of gates, or of what follows from what.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

#: From a place, the index of the first number of a channel there, and the channel, to what takes its place.
Replace = Callable[["Read", int, Tensor], Tensor]


class Read(nn.Module):
    """What the next operation reads. Does nothing by itself.

    Args:
        offsets: {layer: index of its first number here}, of all layers whose channels lie here; or several indices.
        axis: of the channels.
        width: numbers of a channel.
    """

    def __init__(self, offsets: Mapping[str, int | Sequence[int]], axis: int = 1, width: int = 1) -> None:
        super().__init__()
        self.offsets = {name: [at] if isinstance(at, int) else list(at) for name, at in offsets.items()}
        self.axis, self.width = axis, width

    def forward(self, x: Tensor) -> Tensor:
        return x


def zeros(read: Read, first: int, block: Tensor) -> Tensor:
    return torch.zeros_like(block)


def eager(
    model: nn.Module, images: Tensor, gone: Mapping[str, Sequence[int]], replace: Replace = zeros
) -> Tensor:  # fmt: skip
    """Logits of the network when these channels of these layers are replaced wherever they are read."""

    def hook(read: nn.Module, _: object, value: Tensor) -> Tensor:
        assert isinstance(read, Read)
        value = value.clone()
        for layer, channels in gone.items():
            for first in (at + c * read.width for at in read.offsets.get(layer, ()) for c in channels):
                block = value.narrow(read.axis, first, read.width)
                block.copy_(replace(read, first, block.clone()))
        return value

    handles = [part.register_forward_hook(hook) for part in model.modules() if isinstance(part, Read)]
    try:
        with torch.no_grad():
            return model(images)
    finally:
        for handle in handles:
            handle.remove()
