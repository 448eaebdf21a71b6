"""What has to run again when a unit is gone, and what of it may be written over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from math import prod

from torch import fx

from prunescope.engine.ablation.gates import Reading, gate


class Plan:
    """What has to run again when a channel of a layer is gone.

    Args:
        wanted: nodes whose values are to be known at the end: what they do not depend on is left out. None: the output.

    Attributes:
        nodes: in their order.
        done: {node: values that nothing reads after it}.
        spare: {node: its inputs that it may write over}.
        largest: numbers per image of the largest value; 0: nothing has to run again.
    """

    def __init__(
        self, traced: fx.GraphModule, places: Sequence[Reading], own: Set[fx.Node],
        wanted: Collection[fx.Node] | None = None,
    ) -> None:  # fmt: skip
        first = {at.gate for at in places}
        needed = set(traced.graph.nodes) if wanted is None else needed_for(traced, wanted)
        self.nodes: list[fx.Node] = []
        touched: set[fx.Node] = set()
        for node in traced.graph.nodes:
            depends = "size" not in node.meta and not touched.isdisjoint(node.all_input_nodes)
            if node in needed and (node in first or depends):
                touched.add(node)
                self.nodes.append(node)
        self.largest = max((prod(node.meta["shape"][1:]) for node in self.nodes if node.meta["shape"]), default=0)
        inputs = {node: [other for other in node.all_input_nodes if other in touched] for node in self.nodes}
        last = {other: node for node in self.nodes for other in inputs[node]}
        self.done: dict[fx.Node, list[fx.Node]] = {node: [] for node in self.nodes}
        for value, reader in last.items():
            if value not in (wanted or ()):
                self.done[reader].append(value)
        self.spare = _spare(inputs, own, wanted or ())


def needed_for(traced: fx.GraphModule, wanted: Collection[fx.Node]) -> set[fx.Node]:
    """The nodes that the wanted ones depend on, and these."""
    needed: set[fx.Node] = set()
    for node in reversed(traced.graph.nodes):
        if node in wanted or not needed.isdisjoint(node.users):
            needed.add(node)
    return needed


def _spare(
    inputs: Mapping[fx.Node, Sequence[fx.Node]], own: Set[fx.Node], kept: Collection[fx.Node]
) -> dict[fx.Node, frozenset[fx.Node]]:
    """{node: its inputs that it may write over}: nothing reads them later, nor a view of them.

    Args:
        own: nodes whose values share memory with no other's.
        kept: nodes whose values are read when all is done.
    """
    memory: dict[fx.Node, frozenset[fx.Node]] = {}  # whose tensors a value may be, or be a view of
    last: dict[fx.Node, fx.Node | None] = {}  # None: it is read when all is done
    for node, given in inputs.items():
        memory[node] = frozenset({node}) if node in own else frozenset().union(*(memory[x] for x in given))
        last.update(dict.fromkeys((maker for other in given for maker in memory[other]), node))
    last.update(dict.fromkeys(maker for node in kept for maker in memory.get(node, ())))

    def is_spare(node: fx.Node, value: fx.Node) -> bool:
        (maker, *more) = memory[value] or (None,)
        alone = [maker in memory[other] for other in inputs[node]].count(True) == 1
        whole = value is maker or value.target is gate
        return maker is not None and not more and whole and alone and last[maker] is node

    return {node: frozenset(value for value in given if is_spare(node, value)) for node, given in inputs.items()}
