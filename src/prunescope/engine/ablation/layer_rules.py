"""How layers hand differences on: they are linear, so what a channel gave is taken away from the whole output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunescope.engine.ablation.nodes import parameter
from prunescope.engine.ablation.scene import Scene
from prunescope.engine.ablation.worlds import Full, Part, Single, World, below, empty, filled, rows


def convolution(node: fx.Node, scene: Scene) -> World:
    """Of maps. What a channel gave is a convolution of that channel alone."""
    source, layer = node.all_input_nodes[0], parameter(node)
    assert isinstance(layer, nn.Conv2d | nn.Conv1d | nn.Conv3d)
    world = scene.differing[source]
    plain = layer.groups == 1 and isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros"
    if plain and isinstance(world, Part) and world.high - world.low < layer.in_channels:
        weight = layer.weight[:, world.low : world.high]
        return Full(_part_of_sum(node, world, lambda x: _convolve(layer, x, weight), scene))
    if plain and isinstance(world, Single) and world.axis == 1:
        return Full(_without_channel(node, source, world, layer, scene))  # type: ignore[arg-type]
    return Full(layer(scene.full(source)))


def _part_of_sum(node: fx.Node, world: Part, give: Callable[[Tensor], Tensor], scene: Scene) -> Tensor:
    """What the channels that differ `give`, beside what all others do, which is the same in all worlds."""
    key = (node, world.low, world.high)
    if key not in scene.rests:
        here = scene.base[node.all_input_nodes[0]][:, world.low : world.high]
        scene.rests[key] = scene.base[node] - give(here)
    return scene.worlds.add_(give(world.content), scene.rests[key])


def _convolve(layer: Any, x: Tensor, weight: Tensor) -> Tensor:
    return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation)


def _without_channel(node: fx.Node, source: fx.Node, world: Single, layer: nn.Conv2d, scene: Scene) -> Tensor:
    """The layer is linear: take away what the channel gave, and add what takes its place."""
    worlds, base = scene.worlds, scene.base[node]
    change = worlds.channel_of(scene.base[source], world.offset, 1)
    change = change.neg_() if world.content is None else world.content - change
    if layer.kernel_size == (1, 1) and layer.stride == (1, 1) and layer.padding in ((0, 0), "valid"):
        weight = layer.weight[:, worlds.channel + world.offset, 0, 0].t()[:, :, None, None]
        return worlds.of(base).addcmul_(change, weight)
    out, change = empty(worlds.count, base), _last(change)
    for channel, start, stop in worlds.runs:
        kernel = _last(layer.weight[:, channel + world.offset].unsqueeze(1))
        if worlds.whole:
            torch.add(base, _convolve(layer, change[start:stop], kernel), out=out[start:stop])
            continue
        at = filled(start, stop, below(max(8, stop - start)))
        given = _convolve(layer, _last(change[at]), kernel)[: stop - start]
        torch.add(rows(base, worlds.image[start:stop]), given, out=out[start:stop])
    return out


def _last(x: Tensor) -> Tensor:
    """Of one channel, told in the strides of channels_last: or the convolution would answer in another layout."""
    x = x.contiguous()
    _, _, height, width = x.shape
    return x.as_strided(x.shape, (height * width, 1, width, 1))


def linear(node: fx.Node, scene: Scene) -> World:
    """Of vectors and tokens, and of flattened maps, where a channel is a block of inputs."""
    source, layer = node.all_input_nodes[0], parameter(node)
    world = scene.differing[source]
    assert isinstance(layer, nn.Linear)
    if isinstance(world, Part) and world.content.dim() == 2:
        weight = layer.weight[:, world.low : world.high]
        return Full(_part_of_sum(node, world, lambda x: F.linear(x, weight), scene))
    across = isinstance(world, Single) and world.axis == 1 and len(source.meta["shape"]) > 2  # reads rows of maps
    if not isinstance(world, Single) or across:
        return Full(layer(scene.full(source)))
    worlds, out = scene.worlds, scene.worlds.of(scene.base[node])
    change = worlds.channel_of(scene.base[source], world.offset, world.axis, world.width)
    change = change.neg_() if world.content is None else world.content - change
    if world.width == 1:
        weight = layer.weight.t()[worlds.channel + world.offset]
        return Full(out.addcmul_(change, weight.view(len(weight), *[1] * (out.dim() - 2), -1)))
    for channel, start, stop in worlds.runs:
        first = world.offset + channel * world.width
        block = layer.weight[:, first : first + world.width]
        if out.dim() == 2:
            out[start:stop].addmm_(change[start:stop], block.t())
        else:
            out[start:stop].add_(F.linear(change[start:stop], block))
    return Full(out)
