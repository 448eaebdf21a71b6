"""Some images in the whole network: what all worlds of these images start from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from prunescope.engine.ablation.gates import gate
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.worlds import Worlds, below, filled

#: Bytes of the largest value of all worlds that run together: what fits into a cache is computed faster.
TILE = 8 * 2**20


@dataclass(eq=False)
class Chunk:
    """Images with the values of all nodes of a stage.

    Attributes:
        logits: (images, classes) of the whole network, float32.
        rests: what layers keep between the worlds of one layer (`layer_rules`); emptied for each.
    """

    images: Tensor
    base: dict[fx.Node, Any]
    logits: Tensor
    rests: dict[Any, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, stage: Stage, images: Tensor) -> Chunk:
        """Run the whole network on images (n, C, H, W), in the stage's precision."""
        reference = next(stage.traced.parameters())
        layout = torch.channels_last if images.dim() == 4 else torch.preserve_format
        given = images.to(reference.dtype).contiguous(memory_format=layout)
        base = stage.run(given)
        return cls(given, base, stage.logits(base).float())

    def __len__(self) -> int:
        return len(self.images)

    def tiles(self, stage: Stage, layer: str, channel: Tensor, image: Tensor | None) -> Iterator[tuple[int, Worlds]]:
        """As many worlds at a time as are fast: (how many of them count, worlds); the others fill up.

        Args:
            channel: (n,) of every world, sorted; with `image` None: channels, each without every image.
        """
        each = 1 if image is not None else len(self)
        at_once = below(max(1, TILE // (stage.plans[layer].largest * self.images.element_size() * each)))
        for start in range(0, len(channel), at_once):
            here = slice(start, start + at_once)
            if image is None:
                yield len(channel[here]) * each, Worlds.grid(channel[here], each)
            else:
                count = len(channel[here])
                at = filled(start, start + count, min(at_once, max(8, at_once // 16)))
                yield count, Worlds.pairs(channel[at], image[at], len(self))


def bytes_per_image(stage: Stage) -> int:
    """Of the values of all nodes, in the stage's precision; gates pass on what is there."""
    size = next(stage.traced.parameters()).element_size()
    nodes = [node for node in stage.traced.graph.nodes if node.meta["images"] and node.target is not gate]
    shapes = [node.meta["shape"] for node in nodes if node.meta["shape"]]
    return size * sum(prod(shape[1:]) for shape in shapes)
