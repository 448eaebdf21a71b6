"""How alike two networks lay what accuracy hangs on upon their units: layer by layer, so (L, ...) in and (L,) out.

A table of units is (L, U): a row per layer, a column per unit of the widest; NaN where a layer has no such unit, or a
dead one. Between networks of different initial weights unit i has no counterpart, so that measures of such pairs must
not depend on the order of units: distances of distributions, class profiles, images that hang on any unit. Those that
go unit by unit are for networks that began from the same weights.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array

#: Units that both networks have, below which a layer's order of units says nothing.
_FEW = 3


def wasserstein(a: Array, b: Array) -> Array:
    """Wasserstein-1 distance of the distributions of a layer's living units (L,): how far the mean unit would have to
    move, in the table's unit. The order of units does not matter, nor that one network has more. NaN where a layer has
    none.

    >>> wasserstein(np.array([[0.0, 1.0, np.nan]]), np.array([[2.0, 1.0, 0.0]])).tolist()
    [0.5]
    """
    return _by_layer(a, b, _wasserstein)


def _wasserstein(x: Array, y: Array) -> float:
    x, y = np.sort(x[np.isfinite(x)]), np.sort(y[np.isfinite(y)])
    if not len(x) or not len(y):
        return float("nan")
    places = np.sort(np.concatenate([x, y]))
    below = [np.searchsorted(values, places[:-1], side="right") / len(values) for values in (x, y)]
    return float((np.abs(below[0] - below[1]) * np.diff(places)).sum())


def profile(a: Array, b: Array) -> Array:
    """Pearson correlation over classes of each layer's class profile, (L, C) twice -> (L,), -1 to 1.

    Classes without images (NaN) are left out; a layer whose profile is constant, or that has fewer than three classes,
    has none: NaN.
    """
    return _by_layer(a, b, _pearson)


def share(a: Array, b: Array) -> Array:
    """By how much each layer's share of a whole differs (L,), 0 to 1; NaN where either network has none."""
    if a.shape != b.shape or a.ndim != 1:
        raise PrunescopeError(f"shares of layers must have equal shapes (layers,), got {a.shape} and {b.shape}")
    found: Array = np.abs(b - a)
    return found


def order(a: Array, b: Array) -> Array:
    """Spearman correlation over the units that live in both networks (L,), -1 to 1; NaN for fewer than three."""
    return _by_layer(a, b, lambda x, y: _pearson(*map(rankdata, _both(x, y))))


def top_tenth(a: Array, b: Array) -> Array:
    """Of the tenth (rounded up) of a layer's units with the largest values, the share that both networks have in it
    (L,), among units that live in both; NaN for fewer than three, and where all are equal. By chance it is about a
    tenth. Of equal ones the first counts.

    >>> top_tenth(np.array([[1.0, 2, 3, 4]]), np.array([[1.0, 2, 4, 3]])).tolist()
    [0.0]
    """
    return _by_layer(a, b, _top_tenth)


def _top_tenth(x: Array, y: Array) -> float:
    x, y = _both(x, y)
    if len(x) < _FEW or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    count = -(-len(x) // 10)
    first, second = (np.argsort(-values, kind="stable")[:count] for values in (x, y))
    return len(np.intersect1d(first, second)) / count


def overlap(a: Array, b: Array, weights: Array | None = None) -> Array:
    """Jaccard index of each layer's set of images, bool (N, L) twice -> (L,), or (draws, L) with weights; 0 to 1.

    Args:
        weights: (draws, N) counts of a bootstrap over images.

    A layer whose set is empty in both networks has none: NaN.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise PrunescopeError(f"sets of images must have equal shapes (images, layers), got {a.shape} and {b.shape}")
    a, b = a.astype(np.bool_), b.astype(np.bool_)
    rows = np.ones((1, len(a))) if weights is None else weights
    shared, either = rows @ (a & b), rows @ (a | b)
    found: Array = np.where(either > 0, shared / np.where(either > 0, either, 1), np.nan)
    return found[0] if weights is None else found


def _by_layer(a: Array, b: Array, function: Callable[[Array, Array], float]) -> Array:
    if a.shape != b.shape or a.ndim != 2:
        raise PrunescopeError(f"tables of layers must have equal shapes (layers, n), got {a.shape} and {b.shape}")
    return np.array([function(x, y) for x, y in zip(a.astype(np.float64), b.astype(np.float64), strict=True)])


def _both(x: Array, y: Array) -> tuple[Array, Array]:
    known = np.isfinite(x) & np.isfinite(y)
    return x[known], y[known]


def _pearson(x: Array, y: Array) -> float:
    x, y = _both(x, y)
    if len(x) < _FEW or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()), -1, 1))
