"""Which filters a network needs to explain its decisions as it does: agreement of heat maps without each filter.

As CAR asks by how much accuracy falls when a filter is taken out, this asks by how much agreement with the whole
network's Grad-CAM falls: a filter may be spared for the decision and yet change its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, fx, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.chunk import bytes_per_image
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.units import Units, units_of
from prunescope.engine.ablation.worlds import Worlds
from prunescope.engine.attribute import gradcam
from prunescope.engine.untouched import untouched
from prunescope.engine.without import Order
from prunescope.metrics.maps import pearson, spearman
from prunescope.models.layers import last_conv

#: Bytes of values that live at the same time, and images that are looked at together.
_MEMORY, _IMAGES = 512 * 2**20, 32


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
        counts = np.isfinite(values[of]).sum(1)
        return 1 - np.nansum(values[of], axis=1) / np.where(counts > 0, counts, np.nan)

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
) -> Agreement:
    """Grad-CAM of every image without every unit of these layers, beside the whole network's.

    A unit that is out is zero where it is read, as in `Ablator`. One forward and a part of a backward pass for each
    unit and image.

    Args:
        layers: names of layers, or {layer: channels}.
        at: module whose output is weighed, called once; None: the last convolution.

    Raises:
        Untraceable: torch.fx cannot follow the network.
        PrunescopeError: an unknown layer or channel, or a module `at` that is not one operation with maps (B, C, h, w).
    """
    with untouched(model.to(device)):
        place = last_conv(model) if at is None else at
        stage = Stage(capture(model, split.shape, fold=False))
    chosen = units_of(stage.channels, layers)
    maps = _Maps(stage, _node(stage, place))
    units = tuple((layer, channel) for layer, channels in chosen.items() for channel in channels)
    shape = len(units), len(split)
    found = {name: np.full(shape, np.nan) for name in ("spearman", "pearson")}
    blank, dense_blank = np.zeros(shape, dtype=np.bool_), np.zeros(shape[1], dtype=np.bool_)
    at_once = max(1, int(_MEMORY // (3 * bytes_per_image(stage))))
    for index, x, _ in split.batches(min(_IMAGES, at_once), device):
        whole, said = maps.whole(x)
        dense_blank[index] = ~whole.any(axis=(1, 2))
        row = 0
        for layer, channels in chosen.items():
            for part in maps.without(x, said, layer, channels, max(1, at_once // len(x))):
                rows, columns = np.arange(row, row + len(part) // len(x)), index.numpy()
                here, beside = np.ix_(rows, columns), np.tile(whole, (len(rows), 1, 1))
                blank[here] = ~part.any(axis=(1, 2)).reshape(len(rows), len(x))
                for name, measure in (("spearman", spearman), ("pearson", pearson)):
                    found[name][here] = measure(beside, part).reshape(len(rows), len(x))
                row += len(rows)
    return Agreement(units, place, found["spearman"], found["pearson"], blank, dense_blank)


class _Maps:
    """Grad-CAM of a captured network at one node."""

    def __init__(self, stage: Stage, at: fx.Node) -> None:
        self.stage, self.at = stage, at

    def whole(self, images: Tensor) -> tuple[Array, Tensor]:
        """Maps (B, h, w) for the classes that the network predicts, and these (B,)."""
        with torch.no_grad():
            said = self.stage.logits(self.stage.run(images)).argmax(1)
        return self._of(images, said, {}), said

    def without(
        self, images: Tensor, said: Tensor, layer: str, channels: Sequence[int], at_once: int
    ) -> Iterator[Array]:  # fmt: skip
        """Maps (channels x B, h, w) of so many channels at a time, for these classes."""
        for start in range(0, len(channels), at_once):
            worlds = Worlds.grid(torch.tensor(channels[start : start + at_once], device=images.device), len(images))
            yield self._of(images[worlds.image], said[worlds.image], self.stage.without(layer, worlds))

    @torch.enable_grad()
    def _of(self, images: Tensor, said: Tensor, change: Mapping[fx.Node, Callable[[fx.Node, Tensor], Tensor]]) -> Array:
        kept: list[Tensor] = []

        def keep(_node: fx.Node, value: Tensor) -> Tensor:
            kept.append(value.detach().requires_grad_())
            return kept[0]

        values = self.stage.run(images, {**change, self.at: keep})
        target = self.stage.logits(values).gather(1, said[:, None]).sum()
        (gradient,) = torch.autograd.grad(target, kept[0])
        found: Array = gradcam(kept[0].detach(), gradient).cpu().numpy()
        return found


def _node(stage: Stage, name: str) -> fx.Node:
    calls = [node for node in stage.traced.graph.nodes if node.op == "call_module"]
    found = [node for node in calls if node.target == name]
    if len(found) != 1 or len(found[0].meta["shape"] or ()) != 4:
        maps = [str(node.target) for node in calls if len(node.meta["shape"] or ()) == 4]
        if name not in maps:
            raise choices("module with maps (images, channels, height, width)", name, maps)
        raise PrunescopeError(f"module {name!r} is called {len(found)} times: which of its maps is meant is not known")
    return found[0]
