"""Which filters a network needs to see the concepts that it sees: agreement of concept scores without each filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor, fx, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.ablation.partway import Partway, call_of, chunks, stage_of
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.units import Units, units_of
from prunescope.engine.vectors import vectors
from prunescope.engine.without import Order
from prunescope.metrics.unit_scores import row_means

#: Below this variance, as a share of the whole network's, a score is constant but for rounding.
_CONSTANT = 1e-10


@dataclass(frozen=True, eq=False)
class ConceptAgreement:
    """How far K concepts' scores of the images stay in proportion without each of U units.

    Attributes:
        units: (layer, channel) of each row.
        layer: whose output, or `NAME:input`, is projected.
        correlation: Pearson (U, K) over images of the scores without the unit with the whole network's, -1 to 1; NaN
            where one of the two is constant.
        images: how many.
    """

    units: Order
    layer: str
    correlation: Array
    images: int

    def reduction(self) -> Array:
        """1 - mean correlation of each unit (U,), 0 to 2, over the concepts that have one; NaN: none has."""
        return 1 - row_means(self.correlation)

    def interval(self, *, level: float = 0.95) -> tuple[Array, Array]:
        """Low and high end (U, K) of each correlation by Fisher's z, as if scores were normal; needs 4 images."""
        if self.images < 4:
            raise PrunescopeError(f"an interval of a correlation needs 4 images or more, got {self.images}")
        z = np.arctanh(np.clip(self.correlation, -1, 1) * (1 - 1e-12))
        width = float(stats.norm.ppf((1 + level) / 2)) / np.sqrt(self.images - 3)
        return np.tanh(z - width), np.tanh(z + width)


def concept_agreement(
    model: nn.Module,
    split: Split,
    layers: Sequence[str] | Units,
    directions: Tensor,
    *,
    at: str,
    device: torch.device | str = "cpu",
    on_worlds: Callable[[int, int], None] | None = None,
) -> ConceptAgreement:
    """Concept scores of every image without every unit of these layers, beside the whole network's.

    A concept's score is the projection of the image's vector on the concept's direction. Compared is over images,
    concept by concept, as `drift` does between networks: that asks for no common scale of concepts, and a shift or
    a stretch of all images alike is no change of what the concept tells them apart by.

    A unit that is out is zero where it is read, as in `Ablator`. Only what depends on it runs, as far as the vector.

    Args:
        layers: names of layers, or {layer: channels}.
        directions: (K, D), one row per concept, such as `concept.directions` of a `concepts` record.
        at: module whose output is the vector (B, D), or map or tokens that are averaged, called once; `NAME:input` for
            what goes into it. The units of a layer `at` itself are read behind its output: for them name the reader's
            input.

    Raises:
        Untraceable: torch.fx cannot follow the network.
        PrunescopeError: an unknown layer, channel or module, an empty split, or directions that do not fit the vectors.
    """
    if directions.dim() != 2:
        raise PrunescopeError(f"directions need shape (concepts, features), got {tuple(directions.shape)}")
    if not len(split):
        raise PrunescopeError("concept scores are compared over images, and the split has none")
    stage = stage_of(model, split.shape, device)
    chosen = units_of(stage.channels, layers)
    node = _place(stage, at)
    before, score = Partway(stage, [node]), _Score(directions.to(device, torch.float64), at)
    units = tuple((layer, channel) for layer, channels in chosen.items() for channel in channels)
    moments, done = _Moments(len(units), len(directions), device), 0
    with torch.no_grad():
        mean, std = _of_all_images(stage, node, split, device, score)
        for _, chunk in chunks(stage, split, device):
            whole = (score(chunk.base[node]) - mean) / std
            for rows, layer, worlds in before.worlds(chosen, chunk):
                found = (score(before.without(layer, worlds, chunk)[node]) - mean) / std
                moments.add(rows, whole, found.view(len(worlds.runs), len(chunk), -1))
                done += worlds.count
                if on_worlds is not None:
                    on_worlds(done, len(units) * len(split))
    return ConceptAgreement(units, at, moments.correlation(len(split)), len(split))


@dataclass(frozen=True, eq=False)
class _Score:
    """Projections (n, K), float64, of what a layer gives, on directions (K, D)."""

    directions: Tensor
    layer: str

    def __call__(self, value: Tensor) -> Tensor:
        found = vectors(value, self.layer)
        if found.shape[1] != self.directions.shape[1]:
            raise PrunescopeError(
                f"directions have {self.directions.shape[1]} features, vectors of {self.layer!r} {found.shape[1]}"
            )
        return found.double() @ self.directions.T


class _Moments:
    """Sums over images of standardised scores b without each unit, beside those of the whole network, a."""

    def __init__(self, units: int, concepts: int, device: torch.device | str) -> None:
        self.b, self.bb, self.ab = torch.zeros(3, units, concepts, dtype=torch.float64, device=device)

    def add(self, rows: slice, whole: Tensor, found: Tensor) -> None:
        """Scores (B, K) and (units, B, K)."""
        self.b[rows] += found.sum(1)
        self.bb[rows] += found.square().sum(1)
        self.ab[rows] += (found * whole).sum(1)

    def correlation(self, images: int) -> Array:
        """Pearson (units, K); of the whole network mean and variance are 0 and 1."""
        variance = self.bb / images - (self.b / images) ** 2
        varies = variance > _CONSTANT
        found = torch.where(varies, self.ab / images / variance.clamp_min(_CONSTANT).sqrt(), torch.nan)
        return found.clamp(-1, 1).cpu().numpy()


def _of_all_images(
    stage: Stage, node: fx.Node, split: Split, device: torch.device | str, score: _Score
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (K,) of the whole network's scores; NaN instead of a deviation of 0."""
    scores = torch.cat([score(chunk.base[node]) for _, chunk in chunks(stage, split, device)])
    mean, std = scores.mean(0), scores.std(0, correction=0)
    varies = std > 1e-6 * scores.abs().amax(0)
    return mean, torch.where(varies, std, torch.nan)


def _place(stage: Stage, at: str) -> fx.Node:
    """The node whose value is the output of a module, or its input."""
    name, _, side = at.partition(":")
    if side not in ("", "input"):
        raise PrunescopeError(f"{at!r} is no place in the network: give the name of a module, or NAME:input")
    node = call_of(stage.traced, name)
    return node.all_input_nodes[0] if side else node
