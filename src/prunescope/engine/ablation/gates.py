"""Where a unit is read: gates, through which its channel passes on the way to each of its consumers."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunescope.engine.ablation.capture import is_call_of
from prunescope.models.layers import CONVOLUTIONS

#: Modules that treat every channel by itself.
CHANNELWISE = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d, nn.LPPool2d, nn.ZeroPad2d, nn.ReflectionPad2d, nn.Upsample, nn.BatchNorm1d, nn.BatchNorm2d,
)  # fmt: skip
_FUNCTIONS = {
    F.relu, torch.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.mish, F.hardswish, F.hardsigmoid, F.hardtanh,
    torch.sigmoid, F.sigmoid, torch.tanh, F.tanh, F.softplus, F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d,
    F.adaptive_max_pool2d, F.dropout, F.interpolate,
}  # fmt: skip
_METHODS = {"relu", "sigmoid", "tanh", "contiguous", "clamp"}
_SCALAR = {operator.add, operator.sub, operator.mul, operator.truediv, torch.add, torch.mul}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def gate(value: Tensor) -> Tensor:
    """A place at which channels can be taken out."""
    return value


@dataclass(frozen=True, eq=False)
class Reading:
    """One gate on the way from a layer to its readers.

    Attributes:
        gate: the node.
        offset: index of the layer's first channel there.
        axis: of the channels: 1 in maps, -1 in tokens and vectors.
    """

    gate: fx.Node
    offset: int
    axis: int


def channelwise(node: fx.Node) -> bool:
    """Whether a node treats every channel of its only tensor by itself, the same way in all networks it is part of."""
    if len(node.all_input_nodes) != 1:
        return False
    if node.op == "call_module":
        return is_call_of(node, CHANNELWISE)
    if node.op == "call_method":
        return node.target in _METHODS or (node.target == "mean" and over_places(node))
    if node.target is torch.mean:
        return over_places(node)
    if node.target in _SCALAR:
        return len(node.args) == 2 and isinstance(node.args[0], fx.Node)
    return node.op == "call_function" and node.target in _FUNCTIONS


def over_places(node: fx.Node) -> bool:
    """Whether a mean goes over the places of maps, rows and columns."""
    dims = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
    source = node.all_input_nodes[0].meta["shape"]
    if source is None or len(source) != 4 or not isinstance(dims, (list, tuple)):
        return False
    return sorted(int(dim) % 4 for dim in dims) == [2, 3]


def is_cat(node: fx.Node) -> bool:
    """Whether a node puts channels side by side."""
    if node.target not in (torch.cat, torch.concat):
        return False
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return bool(dim == 1 and isinstance(node.args[0], (list, tuple)) and len(node.meta["shape"] or ()) in (2, 4))


def add_gates(traced: fx.GraphModule) -> dict[str, tuple[Reading, ...]]:
    """Put a gate before every reader of every convolution's and linear layer's outputs.

    Returns:
        {layer: its readings}. A layer whose outputs are, perhaps pooled, the outputs of the network has none: its
        channels are the classes.
    """
    layers: dict[str, list[fx.Node]] = {}
    for node in traced.graph.nodes:
        if is_call_of(node, (*CONVOLUTIONS, nn.Linear)):
            layers.setdefault(str(node.target), []).append(node)
    sinks = {name: [sink for node in nodes for sink in _sinks(node)] for name, nodes in layers.items()}
    gates: dict[fx.Node, fx.Node] = {}
    for found in sinks.values():
        for value, readers, _, axis in found:
            if value not in gates:
                gates[value] = _insert(traced, value, readers, axis)
    readings: dict[str, tuple[Reading, ...]] = {}
    for name, found in sinks.items():
        if not any(_is_end(reader) for _, readers, _, _ in found for reader in readers):
            readings[name] = tuple(Reading(gates[value], offset, axis) for value, _, offset, axis in found)
    return readings


def _sinks(source: fx.Node) -> Iterator[tuple[fx.Node, list[fx.Node], int, int]]:
    """(value, those that read it across channels, offset of the layer's channels, axis)."""
    axis = 1 if is_call_of(source, CONVOLUTIONS) else -1
    frontier = [(source, 0)]
    while frontier:
        value, offset = frontier.pop()
        readers = []
        for user in value.users:
            if channelwise(user) and (axis == 1 or not is_call_of(user, NORMS)):
                frontier.append((user, offset))
            elif is_cat(user) and (axis == 1 or len(value.meta["shape"]) == 2):
                frontier += [(user, offset + at) for at in _offsets(user, value)]
            else:
                readers.append(user)
        if readers:
            yield value, readers, offset, axis


def _is_end(reader: fx.Node) -> bool:
    """Whether a reader is the network's output, or only gives it another shape."""
    shapes = torch.flatten, "flatten", "view", "reshape", "squeeze"
    if reader.target in shapes or is_call_of(reader, (nn.Flatten,)):
        return all(_is_end(user) for user in reader.users)
    return reader.op == "output"


def _offsets(cat: fx.Node, value: fx.Node) -> list[int]:
    found, at = [], 0
    for part in cat.args[0]:  # type: ignore[union-attr]
        if part is value:
            found.append(at)
        at += part.meta["shape"][1]  # type: ignore[union-attr]
    return found


def _insert(traced: fx.GraphModule, value: fx.Node, readers: list[fx.Node], axis: int) -> fx.Node:
    with traced.graph.inserting_after(value):
        node = traced.graph.call_function(gate, (value,))
    node.meta.update(value.meta, call=gate, axis=axis)
    for reader in readers:
        reader.replace_input_with(value, node)
    return node
