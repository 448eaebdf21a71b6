"""How each kind of operation hands differences on."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunescope.engine.ablation.channelwise import along_last, channelwise, is_norm, is_relu
from prunescope.engine.ablation.gates import gate, is_cat, is_flatten
from prunescope.engine.ablation.layer_rules import convolution, linear
from prunescope.engine.ablation.nodes import affine, is_plain_call_of, parameter
from prunescope.engine.ablation.scene import Scene, content_of, share
from prunescope.engine.ablation.worlds import Full, Part, Single, World
from prunescope.models.layers import CONVOLUTIONS

Rule = Callable[[fx.Node, Scene], World]


def rule_of(node: fx.Node) -> Rule:
    """The rule of a node, chosen once."""
    if node.target is gate:
        return _gate
    if channelwise(node):
        return _norm if is_norm(node) else _channelwise
    if is_plain_call_of(node, CONVOLUTIONS):
        return convolution
    if is_plain_call_of(node, (nn.Linear,)):
        return linear
    if is_cat(node):
        return _cat
    if is_sum(node):
        return _sum
    return _flatten if is_flatten(node) else _other


def makes_its_own(node: fx.Node, rule: Rule) -> bool:
    """Whether a node's rule gives a tensor that no other value shares."""
    return rule in (convolution, linear, _sum, _norm) or (rule is _channelwise and is_relu(node))


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds two values of the same shape."""
    return (
        node.target in (operator.add, torch.add) and len(node.args) == 2 and not node.kwargs
        and all(isinstance(arg, fx.Node) and arg.meta["leads"] for arg in node.args)
        and node.args[0].meta["shape"] == node.args[1].meta["shape"]  # type: ignore[union-attr]
    )  # fmt: skip


def _gate(node: fx.Node, scene: Scene) -> World:
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    world = scene.differing[source]
    if node not in scene.closed:
        return world
    if isinstance(world, Single):
        content = content_of(world, source, scene)
        content = content * share(scene.closed[node], world, content, scene.worlds)
        return Single(content, world.offset, world.axis, world.width)
    out = scene.full(source)
    return Full(out * through(scene.closed[node], node, out))


def through(keep: Tensor, node: fx.Node, value: Tensor) -> Tensor:
    """One number per channel, shaped to multiply a gate's value."""
    return keep.view(-1, *[1] * (value.dim() - 2)) if node.meta["axis"] == 1 else keep


def _channelwise(node: fx.Node, scene: Scene) -> World:
    source = node.all_input_nodes[0]
    world = scene.differing[source]
    if isinstance(world, Single) and (world.axis == 1 or along_last(node)):
        content = content_of(world, source, scene)
        return Single(_apply(node, content), world.offset, world.axis, world.width)
    content = world.content if isinstance(world, Part) else scene.full(source)
    if is_relu(node) and source in scene.spare[node]:
        content = torch.relu_(content)
    else:
        content = _apply(node, content)
    return Part(content, world.low, world.high) if isinstance(world, Part) else Full(content)


def _apply(node: fx.Node, content: Any) -> Any:
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda _: content)
    return node.meta["call"](*args, **kwargs)


def _norm(node: fx.Node, scene: Scene) -> World:
    source, norm = node.all_input_nodes[0], parameter(node)
    world = scene.differing[source]
    if isinstance(world, Full) or (isinstance(world, Single) and world.axis == -1 and not along_last(node)):
        return Full(norm(scene.full(source)))
    scale, shift = affine(norm)
    if isinstance(world, Part):
        view = (-1, *[1] * (world.content.dim() - 2))
        part = slice(world.low, world.high)
        return Part(world.content * scale[part].view(view) + shift[part].view(view), world.low, world.high)
    content = content_of(world, source, scene)
    scale, shift = (share(vector, world, content, scene.worlds) for vector in (scale, shift))
    return Single(content * scale + shift, world.offset, world.axis, world.width)


def _sum(node: fx.Node, scene: Scene) -> World:
    one, other = (arg for arg in node.args)
    if scene.differing.get(one) is None:  # type: ignore[arg-type]
        one, other = other, one
    world, beside = scene.differing[one], scene.differing.get(other)  # type: ignore[index, arg-type]
    base = scene.base[other]  # type: ignore[index]
    if beside is not None:
        if isinstance(beside, Full) and not isinstance(world, Full):
            one, other, world = other, one, beside
        into = scene.full(one) if one in scene.spare[node] or not isinstance(world, Full) else world.content.clone()  # type: ignore[arg-type]
        return Full(into.add_(scene.full(other)))  # type: ignore[arg-type]
    if not isinstance(world, Single):
        content = world.content if one in scene.spare[node] else world.content.clone()
        if isinstance(world, Full):
            return Full(scene.worlds.add_(content, base))
        return Part(scene.worlds.add_(content, base[:, world.low : world.high]), world.low, world.high)
    beside_it = scene.worlds.channel_of(base, world.offset, world.axis, world.width)
    content = beside_it if world.content is None else beside_it.add_(world.content)
    return Single(content, world.offset, world.axis, world.width)


def _cat(node: fx.Node, scene: Scene) -> World:
    parts: list[fx.Node] = list(node.args[0])  # type: ignore[arg-type]
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + part.meta["shape"][1])
    changed = [i for i, part in enumerate(parts) if part in scene.differing]
    world = scene.differing[parts[changed[0]]]
    if len(changed) == 1 and isinstance(world, Single) and (world.axis == 1 or len(node.meta["shape"]) == 2):
        return Single(world.content, world.offset + starts[changed[0]], world.axis, world.width)
    if len(changed) == 1 and isinstance(world, Part):
        return Part(world.content, starts[changed[0]] + world.low, starts[changed[0]] + world.high)
    first, last = changed[0], changed[-1] + 1
    pieces = [scene.full(part) for part in parts[first:last]]
    return Part(torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0], starts[first], starts[last])


def _flatten(node: fx.Node, scene: Scene) -> World:
    source = node.all_input_nodes[0]
    world = scene.differing[source]
    _, _, height, width = source.meta["shape"]
    places = height * width
    if isinstance(world, Single) and world.axis == 1:
        content = None if world.content is None else world.content.flatten(1)
        return Single(content, world.offset * places, -1, places)
    if isinstance(world, Part):
        return Part(world.content.flatten(1), world.low * places, world.high * places)
    return Full(scene.full(source).flatten(1))


def _other(node: fx.Node, scene: Scene) -> World:
    """Anything else runs as it is, on all worlds as if they were images."""
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), scene.full)
    return Full(node.meta["call"](*args, **kwargs))
