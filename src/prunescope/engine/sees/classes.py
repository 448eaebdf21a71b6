"""How much every channel answers to every class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunescope.core.types import Array, Record
from prunescope.engine.extremes import as_maps
from prunescope.engine.sweep import Needs, Pass


@dataclass(eq=False)
class ClassMeans:
    """Mean of the rectified activation over places and images of each class, gathered while a `sweep` runs.

    Attributes:
        found: {layer: (C, classes), NaN for classes without images}, when the sweep is done.
    """

    layers: Sequence[str]
    classes: int
    split: str
    found: dict[str, Array] = field(default_factory=dict)
    _sums: dict[str, Tensor] = field(default_factory=dict)
    _counts: Tensor | float = 0.0

    @property
    def needs(self) -> Needs:
        return Needs(layers=tuple(self.layers), splits=(self.split,))

    def update(self, batch: Pass) -> None:
        member = torch.nn.functional.one_hot(batch.y.cpu(), self.classes).double()
        self._counts = self._counts + member.sum(0)
        for layer in self.layers:
            means = as_maps(batch.activations[layer], layer).relu().mean((2, 3)).cpu().double()
            total = means.T @ member
            self._sums[layer] = self._sums[layer] + total if layer in self._sums else total

    def finish(self) -> Record:
        self.found = {layer: (total / self._counts).numpy() for layer, total in self._sums.items()}
        return Record("class means", arrays=self.found)
