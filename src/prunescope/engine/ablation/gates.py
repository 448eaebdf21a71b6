"""Where a unit is read: gates, through which its channel passes on the way to each of its consumers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from prunescope.engine.ablation.channelwise import along_last, channelwise, puts_channels_last, renorms
from prunescope.engine.ablation.nodes import is_call_of, parameter
from prunescope.models.layers import CONVOLUTIONS

_SHAPES = {torch.flatten, "flatten", "view", "reshape", "squeeze"}
_SOFTMAX = {F.softmax, F.log_softmax, torch.softmax, torch.log_softmax, "softmax", "log_softmax"}


def gate(value: Tensor) -> Tensor:
    """A place at which channels can be taken out."""
    return value


@dataclass(frozen=True, eq=False)
class Reading:
    """One place on the way from a layer to its readers.

    Attributes:
        gate: the node.
        offset: index of the first number of the layer's first channel there.
        axis: of the channels: 1 in maps, -1 in tokens and vectors.
        width: numbers of a channel side by side on that axis: more than one of an attention head, and of a channel
            whose flattened places pass through a norm or another function before they are read.
    """

    gate: fx.Node
    offset: int
    axis: int
    width: int = 1

    def index(self, channels: Tensor) -> Tensor:
        """Where channels (n,) lie along the axis: (n, width)."""
        first = self.offset + channels * self.width
        return first[:, None] + torch.arange(self.width, device=channels.device)


def sources(traced: fx.GraphModule) -> dict[str, list[fx.Node]]:
    """{layer: the nodes that make its channels}: convolutions, linear layers, and attention, whose units are heads.

    Not layers that see nothing of the images (those that make position biases).
    """
    found: dict[str, list[fx.Node]] = {}
    for node in traced.graph.nodes:
        if not node.meta["images"]:
            continue
        if "heads" in node.meta:
            found.setdefault(node.meta["heads"].name, []).append(node)
        elif is_call_of(node, (*CONVOLUTIONS, nn.Linear)):
            found.setdefault(str(node.target), []).append(node)
    return found


def count_of(source: fx.Node) -> int:
    """How many channels, or heads, a source makes."""
    if "heads" in source.meta:
        return int(source.meta["heads"].count)
    layer = parameter(source)
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]


def made(source: fx.Node) -> Reading:
    """The channels of a layer where they are made."""
    width = source.meta["heads"].width if "heads" in source.meta else 1
    return Reading(source, 0, 1 if is_call_of(source, CONVOLUTIONS) else -1, width)


def is_cat(node: fx.Node) -> bool:
    """Whether a node puts channels side by side."""
    if node.target not in (torch.cat, torch.concat):
        return False
    dim = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return bool(dim == 1 and isinstance(node.args[0], (list, tuple)) and len(node.meta["shape"] or ()) in (2, 4))


def is_flatten(node: fx.Node) -> bool:
    """Whether a node makes vectors of maps: the places of a channel side by side."""
    source = node.all_input_nodes[0].meta["shape"] if node.all_input_nodes else None
    flattens = node.target in (torch.flatten, "flatten", "view", "reshape") or is_call_of(node, (nn.Flatten,))
    return flattens and source is not None and len(source) == 4 and node.meta["leads"] and len(node.meta["shape"]) == 2


def add_gates(traced: fx.GraphModule) -> dict[str, tuple[Reading, ...]]:
    """Put a gate before every reader of every layer's channels.

    Returns:
        {layer: its readings}. A layer whose outputs are, perhaps pooled, the outputs of the network has none: its
        channels are the classes.
    """
    sinks = {name: [sink for node in nodes for sink in _sinks(node)] for name, nodes in sources(traced).items()}
    gates: dict[fx.Node, fx.Node] = {}
    for found in sinks.values():
        for at, readers in found:
            if at.gate not in gates:
                gates[at.gate] = _insert(traced, at, readers)
    return {
        name: tuple(Reading(gates[at.gate], at.offset, at.axis, at.width) for at, _ in found)
        for name, found in sinks.items()
        if not any(_is_end(reader) for _, readers in found for reader in readers)
    }


def _sinks(source: fx.Node) -> Iterator[tuple[Reading, list[fx.Node]]]:
    """(value with the channels, those that read it across channels)."""
    frontier = [made(source)]
    while frontier:
        here = frontier.pop()
        on = {user: _beyond(user, here) for user in here.gate.users}
        frontier += [beyond for found in on.values() for beyond in found]
        readers = [user for user, found in on.items() if not found]
        if readers:
            yield here, readers


def _beyond(user: fx.Node, here: Reading) -> list[Reading]:
    """Where the channels lie behind an operation that does not read across them; [] of one that does."""
    if channelwise(user) and (here.axis == 1 or along_last(user)):
        return [replace(here, gate=user)]
    if renorms(user) and user.args[0] is here.gate:
        return [replace(here, gate=user)]
    if here.axis == 1 and puts_channels_last(user) and any(renorms(after) for after in user.users):
        return [replace(here, gate=user, axis=-1)]
    shape = here.gate.meta["shape"]
    if is_cat(user) and (here.axis == 1 or len(shape) == 2):
        return [replace(here, gate=user, offset=here.offset + at) for at in offsets(user, here.gate)]
    if here.axis == 1 and is_flatten(user) and any(channelwise(after) or is_cat(after) for after in user.users):
        places = shape[2] * shape[3]
        return [Reading(user, here.offset * places, -1, places)]
    return []


def _is_end(reader: fx.Node) -> bool:
    """Whether a reader is the network's output, or only gives it another shape or makes probabilities of it."""
    shapes = reader.target in _SHAPES | _SOFTMAX or is_call_of(reader, (nn.Flatten, nn.Softmax, nn.LogSoftmax))
    return all(_is_end(user) for user in reader.users) if shapes else reader.op == "output"


def offsets(cat: fx.Node, value: fx.Node) -> list[int]:
    """Where a value's channels begin in a concatenation; more than once where it is there twice."""
    found, at = [], 0
    for part in cat.args[0]:  # type: ignore[union-attr]
        if part is value:
            found.append(at)
        at += part.meta["shape"][1]  # type: ignore[union-attr]
    return found


def _insert(traced: fx.GraphModule, at: Reading, readers: list[fx.Node]) -> fx.Node:
    with traced.graph.inserting_after(at.gate):
        node = traced.graph.call_function(gate, (at.gate,))
    node.meta.update({key: at.gate.meta[key] for key in ("images", "shape", "where", "leads")}, call=gate, axis=at.axis)
    for reader in readers:
        reader.replace_input_with(at.gate, node)
    return node
