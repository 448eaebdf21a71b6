"""What has to run again when a unit is gone, and what of it may be written over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from math import prod

from torch import fx

from prunescope.engine.ablation.gates import Reading, gate


class Plan:
    """What has to run again when a channel of a layer is gone.

    Attributes:
        nodes: in their order.
        done: {node: values that nothing reads after it}.
        spare: {node: its inputs that it may write over}.
        largest: numbers per image of the largest value.
    """

    def __init__(self, traced: fx.GraphModule, places: Sequence[Reading], own: Set[fx.Node]) -> None:
        first = {at.gate for at in places}
        self.nodes: list[fx.Node] = []
        touched: set[fx.Node] = set()
        for node in traced.graph.nodes:
            if node in first or ("size" not in node.meta and not touched.isdisjoint(node.all_input_nodes)):
                touched.add(node)
                self.nodes.append(node)
        self.largest = max(prod(node.meta["shape"][1:]) for node in self.nodes if node.meta["shape"])
        inputs = {node: [other for other in node.all_input_nodes if other in touched] for node in self.nodes}
        last = {other: node for node in self.nodes for other in inputs[node]}
        self.done: dict[fx.Node, list[fx.Node]] = {node: [] for node in self.nodes}
        for value, reader in last.items():
            self.done[reader].append(value)
        self.spare = _spare(inputs, own)


def _spare(inputs: Mapping[fx.Node, Sequence[fx.Node]], own: Set[fx.Node]) -> dict[fx.Node, frozenset[fx.Node]]:
    """{node: its inputs that it may write over}: nothing reads them later, nor a view of them.

    Args:
        own: nodes whose values share memory with no other's.
    """
    memory: dict[fx.Node, frozenset[fx.Node]] = {}  # whose tensors a value may be, or be a view of
    last: dict[fx.Node, fx.Node] = {}
    for node, given in inputs.items():
        memory[node] = frozenset({node}) if node in own else frozenset().union(*(memory[x] for x in given))
        last.update(dict.fromkeys((maker for other in given for maker in memory[other]), node))

    def is_spare(node: fx.Node, value: fx.Node) -> bool:
        (maker, *more) = memory[value] or (None,)
        alone = [maker in memory[other] for other in inputs[node]].count(True) == 1
        whole = value is maker or value.target is gate
        return maker is not None and not more and whole and alone and last[maker] is node

    return {node: frozenset(value for value in given if is_spare(node, value)) for node, given in inputs.items()}
