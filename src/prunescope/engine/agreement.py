"""Which filters a network needs to explain its decisions as it does: agreement of heat maps without each filter.

As CAR asks by how much accuracy falls when a filter is taken out, this asks by how much agreement with the whole
network's Grad-CAM falls: a filter may be spared for the decision and yet change its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunescope.core.errors import choices
from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.ablation.chunk import Chunk
from prunescope.engine.ablation.partway import Partway, call_of, chunks, stage_of
from prunescope.engine.ablation.plan import needed_for
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.units import Units, units_of
from prunescope.engine.ablation.worlds import Worlds
from prunescope.engine.attribute import gradcam
from prunescope.engine.without import Order
from prunescope.metrics.maps import pearson, spearman
from prunescope.metrics.unit_scores import row_means
from prunescope.models.layers import last_conv


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far heat maps stay the same without each of U units, on I images.

    Attributes:
        units: (layer, channel) of each row.
        layer: whose output the maps are of.
        spearman, pearson: correlation (U, I) of the map without the unit with the whole network's, both for the class
            that the whole network predicts, -1 to 1; NaN where one of the two is blank or constant.
        blank: bool (U, I): the map without the unit has no positive evidence.
        dense_blank: bool (I,): nor has the whole network's.
    """

    units: Order
    layer: str
    spearman: Array
    pearson: Array
    blank: Array
    dense_blank: Array

    def reduction(self, of: str = "spearman") -> Array:
        """1 - mean agreement of each unit (U,), 0 to 2, over the images in which it is defined; NaN: in none.

        Maps that turn blank are no part of it: see `lost`.
        """
        values = {"spearman": self.spearman, "pearson": self.pearson}
        if of not in values:
            raise choices("agreement", of, values)
        return 1 - row_means(values[of])

    @property
    def lost(self) -> Array:
        """Share (U,) of the images with a map whose map turns blank without the unit; NaN: no image has a map."""
        there = ~self.dense_blank
        found: Array = (self.blank & there).sum(1) / (there.sum() or np.nan)
        return found


def explanation_agreement(
    model: nn.Module,
    split: Split,
    layers: Sequence[str] | Units,
    *,
    at: str | None = None,
    device: torch.device | str = "cpu",
    on_worlds: Callable[[int, int], None] | None = None,
) -> Agreement:
    """Grad-CAM of every image without every unit of these layers, beside the whole network's.

    A unit that is out is zero where it is read, as in `Ablator`. For each unit and image, only what depends on the unit
    runs as far as the maps' layer, and what lies behind that forward and backward.

    Args:
        layers: names of layers, or {layer: channels}.
        at: module whose output is weighed, called once; None: the last convolution.
        on_worlds: called with how many units x images are done, of how many.

    Raises:
        Untraceable: torch.fx cannot follow the network.
        PrunescopeError: an unknown layer or channel, or a module `at` that is not one operation with maps (B, C, h, w).
    """
    place = last_conv(model) if at is None else at
    stage = stage_of(model, split.shape, device)
    chosen = units_of(stage.channels, layers)
    what = "module with maps (images, channels, height, width)"
    maps = _Maps(stage, call_of(stage.traced, place, what, dims=4))
    units = tuple((layer, channel) for layer, channels in chosen.items() for channel in channels)
    shape = len(units), len(split)
    found = {name: np.full(shape, np.nan) for name in ("spearman", "pearson")}
    blank, dense_blank = np.zeros(shape, dtype=np.bool_), np.zeros(shape[1], dtype=np.bool_)
    done = 0
    with torch.no_grad():
        for index, chunk in chunks(stage, split, device):
            whole, columns = maps.whole(chunk), index.numpy()
            dense_blank[columns] = ~whole.any(axis=(1, 2))
            for rows, layer, worlds in maps.before.worlds(chosen, chunk, maps.largest):
                part, beside = maps.without(layer, worlds, chunk), np.tile(whole, (len(worlds.runs), 1, 1))
                here = np.ix_(np.arange(rows.start, rows.stop), columns)
                blank[here] = ~part.any(axis=(1, 2)).reshape(-1, len(chunk))
                for name, measure in (("spearman", spearman), ("pearson", pearson)):
                    found[name][here] = measure(beside, part).reshape(-1, len(chunk))
                done += worlds.count
                if on_worlds is not None:
                    on_worlds(done, prod(shape))
    return Agreement(units, place, found["spearman"], found["pearson"], blank, dense_blank)


class _Maps:
    """Grad-CAM of a captured network at one node, for the classes that the whole network predicts.

    Attributes:
        before: what has to be known for what lies behind the node to run: its value, and those of ways around it.
        largest: numbers per image of the largest value behind it.
    """

    def __init__(self, stage: Stage, at: fx.Node) -> None:
        self.stage, self.at = stage, at
        self.behind = _behind(stage, at)
        beside = {node for behind in self.behind for node in behind.all_input_nodes} - {*self.behind, at}
        self.before = Partway(stage, (at, *beside))
        self.largest = max(prod(node.meta["shape"][1:]) for node in (at, *self.behind) if node.meta["shape"])

    def whole(self, chunk: Chunk) -> Array:
        """(B, h, w)."""
        return self._of(self.before.whole(chunk), chunk.logits.argmax(1), {})

    def without(self, layer: str, worlds: Worlds, chunk: Chunk) -> Array:
        """(n, h, w), one for every world."""
        said = chunk.logits.argmax(1)[worlds.image]
        return self._of(self.before.without(layer, worlds, chunk), said, self.stage.without(layer, worlds))

    @torch.enable_grad()
    def _of(
        self, values: dict[fx.Node, Any], said: Tensor, change: Mapping[fx.Node, Callable[[fx.Node, Tensor], Tensor]]
    ) -> Array:
        """The maps; `change` is of what lies behind the node."""
        values[self.at] = activation = values[self.at].detach().requires_grad_()
        for node in self.behind:
            values[node] = self.stage.value(node, values)
            if node in change:
                values[node] = change[node](node, values[node])
        target = self.stage.logits(values).gather(1, said[:, None]).sum()
        (gradient,) = torch.autograd.grad(target, activation)
        found: Array = gradcam(activation.detach(), gradient).cpu().numpy()
        return found


def _behind(stage: Stage, at: fx.Node) -> list[fx.Node]:
    """What depends on a node, as far as the output depends on it, in its order."""
    needed, touched = needed_for(stage.traced, (stage.output,)), {at}
    for node in stage.traced.graph.nodes:
        if node in needed and not touched.isdisjoint(node.all_input_nodes):
            touched.add(node)
    return [node for node in stage.traced.graph.nodes if node in touched and node is not at]
