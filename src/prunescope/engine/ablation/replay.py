"""The part of a network that depends on a layer, run for many worlds at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from prunescope.engine.ablation.gates import Reading, add_gates, count_of, made, sources
from prunescope.engine.ablation.nodes import evaluate
from prunescope.engine.ablation.plan import Plan
from prunescope.engine.ablation.removal import Removal, Zero
from prunescope.engine.ablation.rules import Rule, makes_its_own, rule_of, through
from prunescope.engine.ablation.scene import Scene, images_first, put
from prunescope.engine.ablation.worlds import Worlds
from prunescope.engine.sweep import logits_of


class Stage:
    """A captured network with gates, on which layers are replayed.

    A layer is a convolution or a linear layer, by its name, and its units are channels; or an attention, and its units
    are heads.

    Attributes:
        readings: {layer: the gates through which its units are read}.
        made: {layer: the nodes that make them}.
        channels: {layer: how many units}.
        own: nodes whose values share memory with no other's.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        self.traced = traced
        nodes = sources(traced)
        self.readings: Mapping[str, tuple[Reading, ...]] = add_gates(traced)
        self.made = {name: tuple(map(made, nodes[name])) for name in self.readings}
        self.channels = {name: count_of(nodes[name][0]) for name in self.readings}
        self.rules: dict[fx.Node, Rule] = {node: rule_of(node) for node in traced.graph.nodes if node.all_input_nodes}
        self.closed: dict[fx.Node, Tensor] = {}
        self.own = frozenset(node for node, rule in self.rules.items() if makes_its_own(node, rule))
        self.plans: dict[str, Plan] = {name: Plan(traced, found, self.own) for name, found in self.readings.items()}
        self._plans_where_made: dict[str, Plan] = {}

    def close(self, gone: Mapping[str, Tensor]) -> None:
        """From now on these channels of these layers are gone in every world, and in the whole network."""
        self.closed = {}
        reference = next(self.traced.parameters())
        for name, channels in gone.items():
            for reading in self.readings[name]:
                if reading.gate not in self.closed:
                    size = reading.gate.meta["shape"][reading.axis]
                    self.closed[reading.gate] = torch.ones(size, dtype=reference.dtype, device=reference.device)
                self.closed[reading.gate][reading.index(channels)] = 0

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
            values[node] = self.value(node, values)
            if change and node in change:
                values[node] = change[node](node, values[node])
        return values

    def value(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        """The value of one node in the whole network (without what is closed), from those before it."""
        found = evaluate(node, values)
        return found * through(self.closed[node], node, found) if node in self.closed else found

    def logits(self, base: Mapping[fx.Node, Any]) -> Tensor:
        """Those of the whole network."""
        return logits_of(base[self.output])

    @property
    def output(self) -> fx.Node:
        return next(node for node in reversed(self.traced.graph.nodes) if node.op == "output")

    def replay(
        self, layer: str, worlds: Worlds, base: Mapping[fx.Node, Any], rests: dict[Any, Tensor] | None = None,
        removal: Removal = Zero(),  # noqa: B008 (frozen)
    ) -> Tensor:  # fmt: skip
        """Logits (n, classes) of every world: an image without one unit of the layer.

        Args:
            base: values of all nodes in the whole network, from `run`; they are left as they are.
            rests: what worlds of one layer and the same images can share; filled here.
            removal: what takes the unit's place.

        Raises:
            Unfollowed: an operation cannot be run for many worlds at once.
        """
        plan, places = self._planned(layer, removal)
        return logits_of(self.replayed(plan, places, worlds, base, rests, removal).full(self.output))

    def replayed(
        self, plan: Plan, places: Sequence[Reading], worlds: Worlds, base: Mapping[fx.Node, Any],
        rests: dict[Any, Tensor] | None = None, removal: Removal = Zero(),  # noqa: B008 (frozen)
    ) -> Scene:  # fmt: skip
        """A scene in which all of a plan has run: it knows the values that nothing in the plan reads, or are wanted.

        Args:
            places: where the unit is taken out.

        Raises:
            Unfollowed: an operation cannot be run for many worlds at once.
        """
        rests = {} if rests is None else rests
        scene = Scene(worlds, base, {}, _by_node(places), removal, self.closed, plan.spare, rests)
        for node in plan.nodes:
            differs = any(other in scene.differing for other in node.all_input_nodes)
            world = scene.replaced(node, self.rules[node](node, scene) if differs else None)
            assert world is not None
            scene.differing[node] = world
            for done in plan.done[node]:
                del scene.differing[done]
        return scene

    def _planned(self, layer: str, removal: Removal) -> tuple[Plan, tuple[Reading, ...]]:
        if not removal.where_made:
            return self.plans[layer], self.readings[layer]
        if layer not in self._plans_where_made:
            self._plans_where_made[layer] = Plan(self.traced, self.made[layer], self.own)
        return self._plans_where_made[layer], self.made[layer]

    def full(self, layer: str, channel: Tensor, images: Tensor) -> Tensor:
        """Logits (n, classes) of every image (n, C, H, W) without its own channel (n,), by a full forward pass."""
        worlds = Worlds.pairs(channel, torch.arange(len(images), device=images.device), len(images))
        return self.logits(self.run(images, self.without(layer, worlds)))

    def without(
        self, layer: str, worlds: Worlds, removal: Removal = Zero(),  # noqa: B008 (frozen)
    ) -> dict[fx.Node, Callable[[fx.Node, Tensor], Tensor]]:  # fmt: skip
        """For `run` on one image per world: what takes every world's channel out."""
        places = _by_node(self.made[layer] if removal.where_made else self.readings[layer])

        def gone(node: fx.Node, value: Tensor) -> Tensor:
            events = [removal.event(at, worlds, images_first(node, value)) for at in places[node]]
            value = value.clone()
            for event in events:
                put(images_first(node, value), event, worlds)
            return value

        return dict.fromkeys(places, gone)


def _by_node(places: Sequence[Reading]) -> dict[fx.Node, list[Reading]]:
    """Places of a unit, by the node whose value they lie in."""
    found: dict[fx.Node, list[Reading]] = {}
    for at in places:
        found.setdefault(at.gate, []).append(at)
    return found
