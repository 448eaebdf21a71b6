"""Values somewhere within a network without a unit: what they depend on runs, and nothing behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.data.split import Split
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.chunk import TILE, Chunk, bytes_per_image
from prunescope.engine.ablation.plan import Plan
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.scene import Unfollowed
from prunescope.engine.ablation.worlds import Worlds, below
from prunescope.engine.untouched import untouched

#: Bytes of values that live at the same time, and images that are looked at together, at most.
MEMORY, IMAGES = 512 * 2**20, 32


class Partway:
    """Some nodes of a stage, in worlds.

    Attributes:
        wanted: the nodes whose values are told.
    """

    def __init__(self, stage: Stage, wanted: Sequence[fx.Node]) -> None:
        self.stage, self.wanted = stage, tuple(wanted)
        self._plans = {
            layer: Plan(stage.traced, places, stage.own, self.wanted) for layer, places in stage.readings.items()
        }

    def whole(self, chunk: Chunk) -> dict[fx.Node, Any]:
        """{wanted node: its value in the whole network}."""
        return {node: chunk.base[node] for node in self.wanted}

    def without(self, layer: str, worlds: Worlds, chunk: Chunk) -> dict[fx.Node, Any]:
        """{wanted node: its value in every world, (n, ...)}; what cannot be followed is run in full."""
        stage = self.stage
        try:
            scene = stage.replayed(self._plans[layer], stage.readings[layer], worlds, chunk.base, chunk.rests)
            return {node: scene.full(node) for node in self.wanted}
        except Unfollowed:
            return self._in_full(layer, worlds, chunk)

    def _in_full(self, layer: str, worlds: Worlds, chunk: Chunk) -> dict[fx.Node, Any]:
        try:
            values = self.stage.run(chunk.images[worlds.image], self.stage.without(layer, worlds))
        except Unfollowed as reason:
            raise PrunescopeError(f"what layer {layer!r} gives cannot be told apart by image: {reason}") from None
        return {node: values[node] for node in self.wanted}

    def worlds(
        self, chosen: Mapping[str, Sequence[int]], chunk: Chunk, beside: int = 0
    ) -> Iterator[tuple[slice, str, Worlds]]:
        """All images of a chunk without each of the units: as many units at a time as are fast.

        Args:
            chosen: {layer: channels}.
            beside: numbers per image of the largest value that the caller keeps for every world.

        Yields:
            (which units these are, of all that are chosen; their layer; their worlds).
        """
        row = 0
        for layer, channels in chosen.items():
            chunk.rests.clear()
            largest = max(beside, self._plans[layer].largest, 1) * chunk.images.element_size() * len(chunk)
            at_once = below(max(1, TILE // largest))
            for part in torch.tensor(channels, dtype=torch.int64, device=chunk.images.device).split(at_once):
                if len(part):
                    yield slice(row, row + len(part)), layer, Worlds.grid(part, len(chunk))
                row += len(part)


def stage_of(model: nn.Module, shape: tuple[int, ...], device: torch.device | str) -> Stage:
    """The network captured with every norm where it is, so that each module's output can be looked at.

    Raises:
        Untraceable: torch.fx cannot follow the network.
    """
    with untouched(model.to(device)):
        return Stage(capture(model, shape, fold=False))


def chunks(stage: Stage, split: Split, device: torch.device | str) -> Iterator[tuple[Tensor, Chunk]]:
    """(positions in the split, images with their values in the whole network), as many as there is room for."""
    room = max(1, int(MEMORY // (3 * bytes_per_image(stage))))
    for index, x, _ in split.batches(min(IMAGES, room), device):
        yield index, Chunk.of(stage, x)


def call_of(traced: fx.GraphModule, name: str, what: str = "module", dims: int | None = None) -> fx.Node:
    """The only call of a module.

    Args:
        what: for the message, what is looked for.
        dims: of its output; None: any.

    Raises:
        PrunescopeError: nothing of that name and kind runs, or it runs more than once.
    """
    calls = [node for node in traced.graph.nodes if node.op == "call_module"]
    known = [node for node in calls if dims is None or len(node.meta["shape"] or ()) == dims]
    found = [node for node in known if node.target == name]
    if not found:
        raise choices(what, name, list(dict.fromkeys(str(node.target) for node in known)))
    if len(found) > 1:
        raise PrunescopeError(f"module {name!r} is called {len(found)} times: which of its outputs is meant?")
    return found[0]
