"""What removing one unit at a time costs: classification accuracy reduction (CAR) and its class by class table.

After Abbasi-Asl and Yu 2017: CAR(i) = accuracy of the network - accuracy without unit i; for one class both
accuracies are over the images that truly belong to it. All of it follows from which decisions turned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.metrics import paired


@dataclass(frozen=True, eq=False)
class Reductions:
    """Which decisions turn when a unit is removed, of U units and C classes. Below 0: the network is better without.

    Attributes:
        classes: names (C).
        counts: images per class (C,).
        right: of these the whole network gets right (C,).
        losses: images right with the whole network and wrong without the unit, (U, C).
        gains: the other way round, (U, C).
        drops: sums over a class's images of the drop in the true class's log-probability (U, C); None: not measured.
    """

    classes: tuple[str, ...]
    counts: Array
    right: Array
    losses: Array
    gains: Array
    drops: Array | None = None

    @property
    def images(self) -> int:
        """How many there are in all."""
        return int(self.counts.sum())

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of the classes without images: their columns are NaN, and nothing else knows of them."""
        return tuple(name for name, count in zip(self.classes, self.counts, strict=True) if not count)

    @property
    def shares(self) -> Array:
        """Share of the images that each class has (C,): CAR is the mean of the class CARs weighted by it."""
        return self.counts / self.images

    @property
    def car(self) -> Array:
        """Accuracy reduction per unit (U,), -1 to 1."""
        return paired.drop(*self._turned, self.images)

    @property
    def class_car(self) -> Array:
        """Reduction of each class's recall (U, C), -1 to 1."""
        return paired.drop(self.losses, self.gains, self.counts)

    @property
    def mean_drop(self) -> Array:
        """Mean drop of the true class's log-probability per unit (U,), nats; NaN where it was not measured."""
        return np.full(len(self.losses), np.nan) if self.drops is None else self.drops.sum(axis=1) / self.images

    @property
    def class_drop(self) -> Array:
        """The same for each class (U, C)."""
        if self.drops is None:
            return np.full(self.losses.shape, np.nan)
        return self.drops / np.where(self.counts > 0, self.counts, np.nan)

    def error(self) -> Array:
        """Standard error of CAR (U,)."""
        return paired.standard_error(*self._turned, self.images)

    def class_error(self) -> Array:
        """Standard error of the class CARs (U, C)."""
        return paired.standard_error(self.losses, self.gains, self.counts)

    def interval(self, *, level: float = 0.95) -> tuple[Array, Array]:
        """Low and high end (U,) of CAR's score interval over images."""
        return paired.interval(*self._turned, self.images, level=level)

    def class_interval(self, *, level: float = 0.95) -> tuple[Array, Array]:
        """The same for the class CARs (U, C)."""
        return paired.interval(self.losses, self.gains, self.counts, level=level)

    def p(self, *, mid: bool = False) -> Array:
        """Exact McNemar p of "the unit does not matter for the accuracy" (U,); `paired.holm` corrects for U units."""
        return paired.mcnemar(*self._turned, mid=mid)

    def class_p(self, *, mid: bool = False) -> Array:
        """The same for each class (U, C)."""
        return np.where(self.counts > 0, paired.mcnemar(self.losses, self.gains, mid=mid), np.nan)

    @property
    def _turned(self) -> tuple[Array, Array]:
        """Losses and gains over all classes (U,) each."""
        return self.losses.sum(axis=1), self.gains.sum(axis=1)


def reductions(
    correct: Array, whole: Array, labels: Array, classes: Sequence[str], *, drop: Array | None = None
) -> Reductions:
    """The table of U ablations over I images.

    Args:
        correct: bool (U, I): is the image right without the unit?
        whole: bool (I,): is it right with the whole network?
        labels: true classes (I,), 0 to C - 1.
        classes: names (C) of the classes.
        drop: (U, I): log-probability of the true class with the whole network, less the one without the unit.

    >>> without, labels = np.array([[True, False, False]]), np.array([0, 0, 1])
    >>> found = reductions(without, np.ones(3, dtype=bool), labels, ["cat", "dog", "elk"])
    >>> found.class_car.tolist(), found.empty
    ([[0.5, 1.0, nan]], ('elk',))

    Raises:
        PrunescopeError: shapes or types that do not fit, a label without a class, no image, a drop that is NaN.
    """
    _check(correct, whole, labels, len(classes))
    labels = labels.astype(np.int64)
    losses, gains = (_per_class(turned, labels, len(classes)) for turned in (whole & ~correct, ~whole & correct))
    right = _per_class(whole[None], labels, len(classes))[0]
    drops = None if drop is None else _per_class(_checked_drop(drop, correct.shape), labels, len(classes))
    return Reductions(tuple(classes), np.bincount(labels, minlength=len(classes)), right, losses, gains, drops)


def _per_class(values: Array, labels: Array, classes: int) -> Array:
    """Sums (U, C) of values (U, I) over each class's images."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    floats = values.dtype.kind == "f"
    table = np.zeros((len(values), classes), dtype=np.float64 if floats else np.int64)
    # Summing into int32 is nine times as fast as into int64, and no class has 2^31 images.
    table[:, present] = np.add.reduceat(
        values.take(order, axis=1), starts, axis=1, dtype=np.float64 if floats else np.int32
    )
    return table


def _check(correct: Array, whole: Array, labels: Array, classes: int) -> None:
    if correct.dtype != np.bool_ or whole.dtype != np.bool_ or correct.ndim != 2 or not len(labels):
        raise PrunescopeError(
            f"ablations need booleans (units, images) and (images,), and at least one image; got {correct.dtype} "
            f"{correct.shape} and {whole.dtype} {whole.shape}"
        )
    if not correct.shape[1:] == whole.shape == labels.shape:
        raise PrunescopeError(
            f"ablations of {correct.shape[1]} images, a whole network's of {len(whole)} and {len(labels)} labels: "
            "all must be of the same images"
        )
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise PrunescopeError(f"labels must be 0 to {classes - 1}, got {labels.dtype} {labels.min()} to {labels.max()}")


def _checked_drop(drop: Array, shape: tuple[int, ...]) -> Array:
    if drop.shape != shape or drop.dtype.kind != "f":
        raise PrunescopeError(f"drops must be floats {shape}, one per unit and image, got {drop.dtype} {drop.shape}")
    if np.isnan(drop).any():
        unit, image = np.argwhere(np.isnan(drop))[0]
        raise PrunescopeError(f"drops must be numbers, got NaN at unit {unit}, image {image}")
    return drop


@dataclass(frozen=True, eq=False)
class Ranking:
    """Units from the least important on.

    Attributes:
        order: units (U,), least important first.
        tied: how many units share their CAR with another.
        undecided: how many of these share the mean drop as well, so that their index alone decides.
    """

    order: Array
    tied: int
    undecided: int


def order(found: Reductions, *, rounding: float = 0.0) -> Ranking:
    """Units by CAR, then by the mean drop of the true class's log-probability, then by index.

    CAR moves in steps of one image, so ties are common; they are told by whole counts, not by rounded shares.

    Args:
        rounding: drops that lie no further apart are equal, and so is all that such steps connect. Computed in other
            batches, drops differ in their last digits; twins would be told apart by them.
    """
    net = (found.losses - found.gains).sum(axis=1)
    drop = np.zeros(len(net)) if found.drops is None else found.mean_drop
    first = np.lexsort((drop, net))
    apart = (np.diff(net[first]) != 0) | (np.diff(drop[first]) > rounding)
    group = np.empty(len(net), dtype=np.int64)
    group[first] = np.cumsum(np.r_[0, apart][: len(net)])
    return Ranking(np.argsort(group, kind="stable"), _shared(net), _shared(group))


def _shared(keys: Array) -> int:
    """How many have a key that another has as well."""
    counts = np.unique(keys, return_counts=True)[1]
    return int(counts[counts > 1].sum())


def most_harmed(found: Reductions, k: int | None = None) -> Array:
    """The k classes (U, k) whose recall falls most without each unit, most harmed first; None: all that have images.

    Ties: the larger drop in log-probability, then the lower class. Read from the end for the classes that gain most.
    """
    present = np.flatnonzero(found.counts)
    falls = found.class_car[:, present]
    drops = np.zeros_like(falls) if found.drops is None else found.class_drop[:, present]
    ranked: Array = np.lexsort((np.broadcast_to(present, falls.shape), -drops, -falls), axis=1)
    return present[ranked[:, :k]]
