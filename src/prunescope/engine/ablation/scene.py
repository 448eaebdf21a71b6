"""What a rule may look at while it hands a difference on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from prunescope.engine.ablation.gates import Reading
from prunescope.engine.ablation.removal import Removal
from prunescope.engine.ablation.worlds import Full, Part, Single, World, Worlds, units


class Unfollowed(Exception):  # noqa: N818 (a network that is followed the slow way, no error)
    """This operation cannot be followed for many worlds at once."""


@dataclass(eq=False)
class Scene:
    """What a rule may look at: the worlds, the values of the whole network, and what differs so far.

    Attributes:
        worlds: which there are.
        base: {node: value of the whole network}, for the images of the chunk.
        differing: {node: how it differs}; nodes that are not there are as in the whole network.
        events: {node: where the unit lies that is taken out there; several where it lies there more than once}.
        removal: what takes its place.
        closed: {gate: 1 for channels that pass in every world and 0 for those that are gone in all}.
        spare: {node: those of its inputs that nothing reads after it, so that it may write over them}.
        rests: what parts of inputs that stay contribute to a layer, {(node, low, high): tensor}; kept over scenes.
    """

    worlds: Worlds
    base: Mapping[fx.Node, Any]
    differing: dict[fx.Node, World]
    events: Mapping[fx.Node, Sequence[Reading]]
    removal: Removal
    closed: Mapping[fx.Node, Tensor]
    spare: Mapping[fx.Node, frozenset[fx.Node]]
    rests: dict[tuple[fx.Node, int, int], Tensor] = field(default_factory=dict)

    def full(self, node: fx.Node) -> Any:
        """The value of a node in every world, in full."""
        return self._full(node, self.differing.get(node))

    def replaced(self, node: fx.Node, world: World | None) -> World | None:
        """How a node's value differs when the channel is taken out there: `world` is how it differs before that."""
        if node not in self.events:
            return world
        value = images_first(node, self.base[node])
        events = [self.removal.event(at, self.worlds, value) for at in self.events[node]]
        first = events[0]
        alone = world is None or (isinstance(world, Single) and world.lies_like(first))
        if len(events) == 1 and alone and node.meta["leads"]:
            return first  # also where a layer reads its own channel again
        out = self._full(node, world)
        out = out.clone() if isinstance(world, Full) else out
        for event in events:
            put(images_first(node, out), event, self.worlds)
        return Full(out)

    def _full(self, node: fx.Node, world: World | None) -> Any:
        if isinstance(world, Full):
            return world.content
        if "size" in node.meta:
            return node.meta["size"](self.worlds.count)
        base = self.base[node]
        if not node.meta["images"]:
            return base
        if node.meta["where"] is None:
            raise Unfollowed(f"{node.name} has no axis of images")
        if not node.meta["leads"]:
            return base.index_select(node.meta["where"], self.worlds.image)
        out = self.worlds.of(base)
        if isinstance(world, Part):
            out[:, world.low : world.high] = world.content
        elif world is not None:
            put(out, world, self.worlds)
        return out


def images_first(node: fx.Node, value: Tensor) -> Tensor:
    """A view of a node's value with the axis of images in front.

    Raises:
        Unfollowed: there is no such axis.
    """
    if node.meta["where"] is None:
        raise Unfollowed(f"{node.name} has no axis of images")
    return value.movedim(node.meta["where"], 0)


def put(out: Tensor, single: Single, worlds: Worlds) -> None:
    """Write what takes the place of every world's channel into the values of all worlds."""
    view = units(out, single.offset, single.axis, single.width)
    content: Any = 0
    if single.content is not None:
        content = single.content.squeeze(1) if single.axis == 1 else single.content
    view[torch.arange(worlds.count, device=out.device), worlds.channel] = content


def content_of(world: Single, source: fx.Node, scene: Scene) -> Tensor:
    """What takes the place of every world's channel, zeros too."""
    if world.content is not None:
        return world.content
    return torch.zeros_like(scene.worlds.channel_of(scene.base[source], world.offset, world.axis, world.width))


def share(vector: Tensor, world: Single, content: Tensor, worlds: Worlds) -> Tensor:
    """Every world's own numbers of a vector along the axis of channels, shaped to go with `content`."""
    found = units(vector[None], world.offset, world.axis, world.width)[0, worlds.channel]
    return found.reshape(len(found), *[1] * (content.dim() - 1 - (world.axis == -1)), *found.shape[1:])
