"""The part of a network that depends on a layer, run for many worlds at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunescope.engine.ablation.capture import evaluate, is_call_of
from prunescope.engine.ablation.gates import Reading, add_gates, gate
from prunescope.engine.ablation.rules import Rule, is_relu, is_sum, rule_of, through
from prunescope.engine.ablation.scene import Scene, put
from prunescope.engine.ablation.worlds import Full, Single, Worlds
from prunescope.engine.sweep import logits_of
from prunescope.models.layers import CONVOLUTIONS


class Stage:
    """A captured network with gates, on which layers are replayed.

    Attributes:
        readings: {layer: the gates through which its channels are read}.
        channels: {layer: how many}.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        self.readings: Mapping[str, tuple[Reading, ...]] = add_gates(traced)
        self.channels = {name: _outputs(traced.get_submodule(name)) for name in self.readings}
        self.rules: dict[fx.Node, Rule] = {node: rule_of(node) for node in traced.graph.nodes if node.all_input_nodes}
        self.closed: dict[fx.Node, Tensor] = {}
        self.plans: dict[str, Plan] = {name: Plan(traced, found) for name, found in self.readings.items()}

    def close(self, gone: Mapping[str, Tensor]) -> None:
        """From now on these channels of these layers are gone in every world, and in the whole network."""
        self.closed = {}
        reference = next(self.traced.parameters())
        for name, channels in gone.items():
            for reading in self.readings[name]:
                if reading.gate not in self.closed:
                    size = reading.gate.meta["shape"][reading.axis]
                    self.closed[reading.gate] = torch.ones(size, dtype=reference.dtype, device=reference.device)
                self.closed[reading.gate][channels + reading.offset] = 0

    def run(
        self, images: Tensor, change: Mapping[fx.Node, Callable[[fx.Node, Tensor], Tensor]] | None = None,
    ) -> dict[fx.Node, Any]:  # fmt: skip
        """Values of all nodes in the whole network (without what is closed).

        Args:
            change: {node: function of the node and its value, whose result takes the value's place}.
        """
        values: dict[fx.Node, Any] = {}
        for node in self.traced.graph.nodes:
            if node.op == "placeholder" and not values:
                values[node] = images
                continue
            values[node] = evaluate(node, values)
            if node in self.closed:
                values[node] = values[node] * through(self.closed[node], node, values[node])
            if change and node in change:
                values[node] = change[node](node, values[node])
        return values

    def logits(self, base: Mapping[fx.Node, Any]) -> Tensor:
        """Those of the whole network."""
        return logits_of(base[self.output])

    @property
    def output(self) -> fx.Node:
        return next(node for node in reversed(self.traced.graph.nodes) if node.op == "output")

    def replay(
        self, layer: str, worlds: Worlds, base: Mapping[fx.Node, Any], rests: dict[Any, Tensor] | None = None,
    ) -> Tensor:  # fmt: skip
        """Logits (n, classes) of every world: an image without one channel of the layer.

        Raises:
            Unfollowed: an operation cannot be run for many worlds at once.
        """
        plan = self.plans[layer]
        events = {reading.gate: Single(None, reading.offset, reading.axis) for reading in self.readings[layer]}
        scene = Scene(worlds, base, {}, events, self.closed, plan.spare, {} if rests is None else rests)
        for node in plan.nodes:
            scene.differing[node] = self.rules[node](node, scene)
            for done in plan.done[node]:
                del scene.differing[done]
        result = scene.differing[self.output]
        assert isinstance(result, Full)
        return logits_of(result.content)

    def full(self, layer: str, channel: Tensor, images: Tensor) -> Tensor:
        """Logits (n, classes) of every image (n, C, H, W) without its own channel (n,), by a full forward pass."""
        at = {reading.gate: reading for reading in self.readings[layer]}
        worlds = Worlds.pairs(channel, torch.arange(len(images), device=images.device), len(images))

        def gone(node: fx.Node, value: Tensor) -> Tensor:
            value = value.clone()
            put(value, Single(None, at[node].offset, at[node].axis), worlds)
            return value

        return self.logits(self.run(images, dict.fromkeys(at, gone))).float()


class Plan:
    """What has to run again when a channel of a layer is gone.

    Attributes:
        nodes: in their order.
        done: {node: values that nothing reads after it}.
        spare: {node: its inputs that it may write over}.
        largest: numbers per image of the largest value.
    """

    def __init__(self, traced: fx.GraphModule, readings: Sequence[Reading]) -> None:
        gates = {reading.gate for reading in readings}
        self.nodes: list[fx.Node] = []
        touched: set[fx.Node] = set()
        for node in traced.graph.nodes:
            if node in gates or ("size" not in node.meta and not touched.isdisjoint(node.all_input_nodes)):
                touched.add(node)
                self.nodes.append(node)
        self.largest = max(prod(node.meta["shape"][1:]) for node in self.nodes if node.meta["shape"])
        owner: dict[fx.Node, fx.Node] = {}  # a gate hands on what it is given
        last: dict[fx.Node, fx.Node] = {}
        for node in self.nodes:
            inputs = [other for other in node.all_input_nodes if other in touched]
            for other in inputs:
                last[other] = last[owner.get(other, other)] = node
            if _hands_on(node) and inputs:
                owner[node] = owner.get(inputs[0], inputs[0])
        self.done: dict[fx.Node, list[fx.Node]] = {node: [] for node in self.nodes}
        for value, reader in last.items():
            self.done[reader].append(value)
        self.spare = {
            node: frozenset(
                other for other in node.all_input_nodes
                if other in touched and last[owner.get(other, other)] is node and _is_fresh(owner.get(other, other))
                and node.all_input_nodes.count(other) == 1
            )
            for node in self.nodes
        }  # fmt: skip


def _hands_on(node: fx.Node) -> bool:
    return node.target is gate


def _is_fresh(node: fx.Node) -> bool:
    """Whether a node's value is a tensor of its own, and no view of another."""
    return is_call_of(node, (*CONVOLUTIONS, nn.Linear)) or is_sum(node) or is_relu(node)


def _outputs(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)  # type: ignore[arg-type]
