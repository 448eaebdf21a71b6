"""What a rule may look at while it hands a difference on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from prunescope.engine.ablation.worlds import Full, Part, Single, World, Worlds


class Unfollowed(Exception):  # noqa: N818 (a network that is followed the slow way, no error)
    """This operation cannot be followed for many worlds at once."""


@dataclass(eq=False)
class Scene:
    """What a rule may look at: the worlds, the values of the whole network, and what differs so far.

    Attributes:
        worlds: which there are.
        base: {node: value of the whole network}, for the images of the chunk.
        differing: {node: how it differs}; nodes that are not there are as in the whole network.
        events: {gate: what takes the place of the channel there}.
        closed: {gate: 1 for channels that pass in every world and 0 for those that are gone in all}.
        spare: {node: those of its inputs that nothing reads after it, so that it may write over them}.
        rests: what parts of inputs that stay contribute to a layer, {(node, low, high): tensor}; kept over scenes.
    """

    worlds: Worlds
    base: Mapping[fx.Node, Any]
    differing: dict[fx.Node, World]
    events: Mapping[fx.Node, Single]
    closed: Mapping[fx.Node, Tensor]
    spare: Mapping[fx.Node, frozenset[fx.Node]]
    rests: dict[tuple[fx.Node, int, int], Tensor] = field(default_factory=dict)

    def full(self, node: fx.Node) -> Any:
        """The value of a node in every world, in full."""
        world = self.differing.get(node)
        if isinstance(world, Full):
            return world.content
        if "size" in node.meta:
            return node.meta["size"](self.worlds.count)
        base = self.base[node]
        if not node.meta["images"]:
            return base
        if not node.meta["leads"]:
            raise Unfollowed(f"{node.name} has no axis of images in front")
        out = self.worlds.of(base)
        if isinstance(world, Part):
            out[:, world.low : world.high] = world.content
        elif world is not None:
            put(out, world, self.worlds)
        return out


def put(out: Tensor, single: Single, worlds: Worlds) -> None:
    """Write what takes the place of every world's channel into the values of all worlds."""
    if single.width > 1:
        view = out.unflatten(1, (-1, single.width))
    else:
        view = out.movedim(single.axis, 1)
    content: Any = 0
    if single.content is not None:
        content = single.content if single.width > 1 else single.content.squeeze(single.axis)
    view[torch.arange(worlds.count, device=out.device), worlds.channel + single.offset] = content


def content_of(world: Single, source: fx.Node, scene: Scene) -> Tensor:
    """What takes the place of every world's channel, zeros too."""
    if world.content is not None:
        return world.content
    return torch.zeros_like(scene.worlds.channel_of(scene.base[source], world.offset, world.axis, world.width))
