"""How each kind of operation hands differences on."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunescope.engine.ablation.capture import is_call_of, parameter
from prunescope.engine.ablation.gates import NORMS, channelwise, gate, is_cat
from prunescope.engine.ablation.layer_rules import convolution, linear
from prunescope.engine.ablation.scene import Scene, content_of, put
from prunescope.engine.ablation.worlds import Full, Part, Single, World
from prunescope.models.layers import CONVOLUTIONS

Rule = Callable[[fx.Node, Scene], World]


def rule_of(node: fx.Node) -> Rule:
    """The rule of a node, chosen once."""
    if node.target is gate:
        return _gate
    if channelwise(node):
        return _norm if is_call_of(node, NORMS) else _channelwise
    if is_call_of(node, CONVOLUTIONS):
        return convolution
    if is_call_of(node, (nn.Linear,)):
        return linear
    if is_cat(node):
        return _cat
    if is_sum(node):
        return _sum
    return _flatten if _is_flatten(node) else _other


def is_sum(node: fx.Node) -> bool:
    """Whether a node adds two values of the same shape."""
    return (
        node.target in (operator.add, torch.add) and len(node.args) == 2 and not node.kwargs
        and all(isinstance(arg, fx.Node) and arg.meta["leads"] for arg in node.args)
        and node.args[0].meta["shape"] == node.args[1].meta["shape"]  # type: ignore[union-attr]
    )  # fmt: skip


def _is_flatten(node: fx.Node) -> bool:
    source = node.all_input_nodes[0].meta.get("shape") if node.all_input_nodes else None
    flattens = node.target in (torch.flatten, "flatten", "view", "reshape") or is_call_of(node, (nn.Flatten,))
    return flattens and source is not None and len(source) == 4 and node.meta["leads"] and len(node.meta["shape"]) == 2


def _gate(node: fx.Node, scene: Scene) -> World:
    source: fx.Node = node.args[0]  # type: ignore[assignment]
    event, world = scene.events.get(node), scene.differing.get(source)
    if event is not None and (world is None or isinstance(world, Single)):
        return event  # a layer that reads its own channel again: it is gone all the same
    if event is None and node not in scene.closed:
        return world  # type: ignore[return-value]
    if event is None and isinstance(world, Single):
        here = scene.closed[node][scene.worlds.channel + world.offset]
        content = content_of(world, source, scene)
        return Single(content * here.view(-1, *[1] * (content.dim() - 1)), world.offset, world.axis, world.width)
    out = scene.full(source)
    out = out.clone() if isinstance(world, Full) else out
    if node in scene.closed:
        out *= through(scene.closed[node], node, out)
    if event is not None:
        put(out, event, scene.worlds)
    return Full(out)


def through(keep: Tensor, node: fx.Node, value: Tensor) -> Tensor:
    """One number per channel, shaped to multiply a gate's value."""
    return keep.view(-1, *[1] * (value.dim() - 2)) if node.meta["axis"] == 1 else keep


def _channelwise(node: fx.Node, scene: Scene) -> World:
    source = node.all_input_nodes[0]
    world = scene.differing[source]
    if isinstance(world, Single):
        content = content_of(world, source, scene)
        return Single(_apply(node, content), world.offset, world.axis, world.width)
    content = world.content
    if is_relu(node) and source in scene.spare[node]:
        content = torch.relu_(content)
    else:
        content = _apply(node, content)
    return Part(content, world.low, world.high) if isinstance(world, Part) else Full(content)


def _apply(node: fx.Node, content: Any) -> Any:
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), lambda _: content)
    return node.meta["call"](*args, **kwargs)


def is_relu(node: fx.Node) -> bool:
    """Whether a node is a ReLU."""
    return node.target in (F.relu, torch.relu, "relu") or is_call_of(node, (nn.ReLU,))


def _norm(node: fx.Node, scene: Scene) -> World:
    source, norm = node.all_input_nodes[0], cast(nn.BatchNorm2d, parameter(node))
    world = scene.differing[source]
    if isinstance(world, Full):
        return Full(norm(world.content))
    assert norm.running_var is not None and norm.running_mean is not None  # noqa: PT018 (both or none)
    scale = (norm.running_var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -norm.running_mean * scale if norm.bias is None else norm.bias - norm.running_mean * scale
    if isinstance(world, Part):
        view = (-1, *[1] * (world.content.dim() - 2))
        part = slice(world.low, world.high)
        return Part(world.content * scale[part].view(view) + shift[part].view(view), world.low, world.high)
    content = content_of(world, source, scene)
    view = (-1, *[1] * (content.dim() - 1))
    here = scene.worlds.channel + world.offset
    return Single(content * scale[here].view(view) + shift[here].view(view), world.offset, world.axis)


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
    if len(changed) == 1 and isinstance(world, Single):
        return Single(world.content, world.offset + starts[changed[0]], world.axis, world.width)
    if len(changed) == 1:
        assert isinstance(world, Part | Full)
        low = starts[changed[0]] + (world.low if isinstance(world, Part) else 0)
        return Part(world.content, low, low + world.content.shape[1])
    first, last = changed[0], changed[-1] + 1
    pieces = [scene.full(part) for part in parts[first:last]]
    return Part(torch.cat(pieces, dim=1), starts[first], starts[last])


def _flatten(node: fx.Node, scene: Scene) -> World:
    source = node.all_input_nodes[0]
    world = scene.differing[source]
    _, _, height, width = source.meta["shape"]
    if isinstance(world, Single):
        content = None if world.content is None else world.content.flatten(1)
        return Single(content, world.offset, 1, height * width)
    if isinstance(world, Part):
        places = height * width
        return Part(world.content.flatten(1), world.low * places, world.high * places)
    return Full(world.content.flatten(1))


def _other(node: fx.Node, scene: Scene) -> World:
    """Anything else runs as it is, on all worlds as if they were images."""
    args, kwargs = fx.node.map_arg((node.args, dict(node.kwargs)), scene.full)
    return Full(node.meta["call"](*args, **kwargs))
