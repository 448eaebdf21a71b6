"""What a dissection finds: overlaps of units with concepts, and which of them make a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.metrics.dissection import p_values
from prunescope.metrics.unit_scores import by_layer, known_mean, row_means


@dataclass(frozen=True)
class Question:
    """What makes a unit a detector.

    Attributes:
        quantile: share of all images and places at which a unit is active: those where its activation is largest.
        threshold: the intersection over union above which a unit detects its best concept.
        draws: how often labels are exchanged between images, for what overlaps by chance.
        seed: of the exchanges.
        memory: bytes for activations. Where all fit, one pass is enough; else the network runs a second time.
    """

    quantile: float = 0.005
    threshold: float = 0.04
    draws: int = 20
    seed: int = 0
    memory: int = 1 << 29

    def __post_init__(self) -> None:
        if not 0 < self.quantile < 1:
            raise PrunescopeError(f"dissection: quantile is a share between 0 and 1, got {self.quantile}")
        if not 0 <= self.threshold < 1:
            raise PrunescopeError(f"dissection: threshold is an overlap from 0 to below 1, got {self.threshold}")
        if self.draws < 1:
            raise PrunescopeError(f"dissection: draws must be at least 1, got {self.draws}")
        if self.memory < 0:
            raise PrunescopeError(f"dissection: memory must be at least 0 bytes, got {self.memory}")


@dataclass(frozen=True, eq=False)
class Dissection:
    """How the units of some layers overlap with concepts.

    Attributes:
        layers: {layer: how many units}, in the order of the rows.
        names, categories: of the K concepts.
        iou: (U, K), intersection over union; NaN for units that are not scored and concepts that no pixel shows.
        chance: (U, draws), of the best concept, with labels exchanged between images; NaN for units not scored.
        dead: bool (U,), units that no image changes. They have no threshold.
        tied: bool (U,), living units whose threshold lies among equal values (rarely active ones behind a ReLU).
        cutoffs: (U,), the activation above which a unit is active; NaN for units not scored.
        area: (K,), share of the labelled pixels that show the concept.
        question: what was asked.
        images, passes: how many, and how often the network ran over them.
    """

    layers: Mapping[str, int]
    names: tuple[str, ...]
    categories: tuple[str, ...]
    iou: Array
    chance: Array
    dead: Array
    tied: Array
    cutoffs: Array
    area: Array
    question: Question
    images: int
    passes: int

    @property
    def scored(self) -> Array:
        """Bool (U,): neither dead nor tied."""
        return ~(self.dead | self.tied)

    @cached_property
    def best(self) -> Array:
        """(U,), the overlap with the best concept; NaN for units not scored."""
        return np.where(self.scored, np.nan_to_num(self.iou, nan=-1).max(axis=1), np.nan)

    @cached_property
    def concept(self) -> Array:
        """(U,), which one that is, of equal ones the first; -1 for units not scored."""
        return np.where(self.scored, np.nan_to_num(self.iou, nan=-1).argmax(axis=1), -1)

    @cached_property
    def p(self) -> Array:
        """(U,), share of the draws, the unit's own order among them, in which its best overlap is as large."""
        return p_values(self.best, self.chance)

    @cached_property
    def detector(self) -> Array:
        """Bool (U,): the best overlap is above the threshold."""
        return np.nan_to_num(self.best, nan=-1) > self.question.threshold

    @cached_property
    def beyond(self) -> Array:
        """Bool (U,): detectors that overlap more than in any draw. Of units that have nothing to do with any concept it
        is one in draws + 1, at most."""
        return self.detector & (np.nan_to_num(self.best, nan=-1) > np.nan_to_num(self.chance).max(axis=1))

    @property
    def chance_level(self) -> float:
        """The overlap that 95 % of all units and draws stay below by chance: what stands beside the threshold."""
        known = self.chance[self.scored]
        return float(np.quantile(known, 0.95)) if known.size else float("nan")

    @property
    def detectors_by_chance(self) -> float:
        """How many units are above the threshold by chance, mean over draws."""
        return float((np.nan_to_num(self.chance) > self.question.threshold).sum(axis=0).mean())

    @property
    def beyond_by_chance(self) -> float:
        """How many units would be above the threshold and beyond all draws, if labels told nothing: at most this.

        Then a unit's own order is one of n = draws + 1, and the best of them with probability P(best of n above) / n.
        That is at most P(best of n - 1 above) / (n - 1), which is counted here.
        """
        above = (np.nan_to_num(self.chance) > self.question.threshold).any(axis=1).sum()
        return float(above / self.question.draws)

    @property
    def absent(self) -> tuple[str, ...]:
        """Concepts that no pixel shows."""
        return tuple(name for name, area in zip(self.names, self.area, strict=True) if not area > 0)

    @property
    def out_of_reach(self) -> tuple[str, ...]:
        """Concepts so large that a unit active at `quantile` of the places cannot be above the threshold."""
        most = self.question.quantile / self.question.threshold if self.question.threshold else np.inf
        return tuple(name for name, area in zip(self.names, self.area, strict=True) if area > most)

    def detected(self, units: Array) -> tuple[str, ...]:
        """The distinct concepts of some units, bool (U,): the unique detectors."""
        return tuple(self.names[i] for i in np.unique(self.concept[units & self.scored]))

    def by_category(self, units: Array) -> dict[str, tuple[int, int]]:
        """{category: (how many of some units, bool (U,), detect one of its concepts, how many concepts these are)}."""
        kinds, chosen = np.array(self.categories), self.concept[units & self.scored]
        return {
            kind: (int((kinds[chosen] == kind).sum()), len(np.unique(chosen[kinds[chosen] == kind])))
            for kind in dict.fromkeys(self.categories)
        }

    def table(self, values: Array) -> Array:
        """A value of every unit (U,) as (layers, units of the widest), NaN behind the end of the narrower."""
        return by_layer(values, self.layers)

    def mean(self, values: Array) -> float:
        """The mean over layers of their means over scored units: pruning units gives no layer more weight."""
        return known_mean(row_means(self.table(np.where(self.scored, values, np.nan))))
