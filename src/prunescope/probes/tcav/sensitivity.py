"""Directional derivatives along many vectors at once, summed up class by class while images go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.engine.sweep import Needs, Pass
from prunescope.probes.tcav.cavs import LayerVectors
from prunescope.probes.tcav.gather import Layers, Positions, as_derivatives

#: Gradients that differ by no more than this share of their largest entry are the same but for rounding.
ROUNDING = 1e-5


@dataclass(eq=False)
class Sensitivity:
    """Of one layer. Memory: classes x (vectors + dimensions), whatever the number of images.

    Attributes:
        directions: (V, D), of length 1.
        classes: C.
    """

    directions: Tensor
    classes: int
    _positive: Tensor = field(init=False)
    _cosines: Tensor = field(init=False)
    _moved: Tensor = field(init=False)
    _silent: Tensor = field(init=False)
    _first: Tensor = field(init=False)
    _seen: Tensor = field(init=False)
    _apart: Tensor = field(init=False)

    def __post_init__(self) -> None:
        (vectors, dim), device = self.directions.shape, self.directions.device
        # Sums over batches are kept on the CPU: not every device has float64.
        self._positive, self._cosines = torch.zeros(2, self.classes, vectors, dtype=torch.float64)
        self._moved, self._silent = torch.zeros(2, self.classes, dtype=torch.float64)
        self._apart = torch.zeros(self.classes, device=device)
        self._first = torch.zeros(self.classes, dim, device=device)
        self._seen = torch.zeros(self.classes, dtype=torch.bool, device=device)

    def add(self, gradients: Tensor, labels: Tensor) -> None:
        """One batch.

        Args:
            gradients: d logit / d activation (B, D), each image's of the logit of its own class.
            labels: those classes (B,).
        """
        sizes = gradients.norm(dim=1)
        along = gradients @ self.directions.T
        cosines = along / sizes.clamp_min(1e-30)[:, None]
        # A gradient of 0 has no direction: it is counted, and part of no share and no mean.
        moves = sizes > 0
        # A product, not `index_add_`, which on a GPU adds in any order.
        members = (labels == torch.arange(self.classes, device=labels.device)[:, None]).float()
        self._positive += _kept(members @ ((along > 0) & moves[:, None]).float())
        self._cosines += _kept(members @ cosines)
        self._moved += _kept(members @ moves.float())
        self._silent += _kept(members @ (~moves).float())
        self._compare(gradients, labels)

    def _compare(self, gradients: Tensor, labels: Tensor) -> None:
        """Keep how far any gradient of a class is from its first one."""
        places = torch.arange(len(labels), device=labels.device)
        first = torch.full((self.classes,), len(labels), device=labels.device)
        first.scatter_reduce_(0, labels, places, "amin")
        new = (first < len(labels)) & ~self._seen
        self._first[new], self._seen[new] = gradients[first[new]], True
        apart = (gradients - self._first[labels]).abs().amax(1)
        self._apart.scatter_reduce_(0, labels, apart, "amax")

    @property
    def shares(self) -> Tensor:
        """(C, V): share of a class's images whose logit rises along the vector (TCAV); NaN without images that move."""
        return self._positive / self._moved[:, None]

    @property
    def strengths(self) -> Tensor:
        """(C, V), -1 to 1: mean cosine between gradient and vector; NaN without images that move."""
        return self._cosines / self._moved[:, None]

    @property
    def silent(self) -> Tensor:
        """(C,): images whose gradient is 0."""
        return self._silent.long()

    @property
    def images(self) -> Tensor:
        """(C,)"""
        return (self._moved + self._silent).long()

    @property
    def constant(self) -> Tensor:
        """bool (C,): the gradient is the same at every one of two or more images, and not 0."""
        size = self._first.abs().amax(1)
        return ((self._apart <= ROUNDING * size) & (size > 0)).cpu() & (self._moved > 1)

    @property
    def degenerate(self) -> bool:
        """Whether that holds for every class of which it can be told: then a score is 0 or 1, whatever the images."""
        told = self._moved > 1
        return bool(told.any()) and bool(self.constant[told].all())


def _kept(sums: Tensor) -> Tensor:
    return sums.cpu().double()


class Sensitivities:
    """The pass over the test images: one backward pass per batch, of each image's own class."""

    def __init__(
        self, layers: Layers, positions: Positions, vectors: Mapping[str, LayerVectors], classes: int,
        *, device: torch.device | str,
    ) -> None:  # fmt: skip
        self.layers, self.positions, self.vectors = layers, positions, vectors
        self.found = {name: Sensitivity(v.directions.to(device), classes) for name, v in vectors.items()}

    @property
    def needs(self) -> Needs:
        return Needs(layers=tuple(self.found), gradients=tuple(self.found))

    def update(self, batch: Pass) -> None:
        gradients = batch.grads(batch.y)
        for layer, found in self.found.items():
            derivatives = as_derivatives(gradients[layer], self.positions, layer, self.layers[layer]).float()
            if not bool(derivatives.isfinite().all()):
                raise PrunescopeError(f"tcav: gradients at layer {layer!r} are not finite; are the weights?")
            found.add(derivatives, batch.y)

    def finish(self) -> Record:
        return Record("tcav")
