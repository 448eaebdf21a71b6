"""Units as detectors of concepts, from counted pixels (Bau et al. 2017, Network Dissection)."""

from __future__ import annotations

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array


def overlap(both: Array, active: Array, shown: Array) -> Array:
    """Intersection over union of every unit and concept, sums over all images: (..., U, K).

    Args:
        both: pixels at which the unit is active and the concept is shown (..., U, K).
        active: pixels at which the unit is active (..., U).
        shown: pixels that show the concept (K,); a concept that none shows has no overlap: NaN.

    >>> overlap(np.array([[2, 0]]), np.array([4]), np.array([6, 0])).tolist()
    [[0.25, nan]]
    """
    union = active[..., None] + shown - both
    found: Array = np.where(shown > 0, both / np.maximum(union, 1), np.nan)
    return found


def p_values(best: Array, chance: Array) -> Array:
    """Permutation p of each unit (U,): how often its best concept overlaps as much by chance, (U, draws); the unit's
    own order counts as one. NaN for units without an overlap."""
    if chance.ndim != 2 or len(chance) != len(best):
        raise PrunescopeError(f"expected overlaps by chance ({len(best)}, draws), got {chance.shape}")
    as_good = (chance >= best[:, None]).sum(axis=1)
    return np.where(np.isfinite(best), (1 + as_good) / (1 + chance.shape[1]), np.nan)


def spread(a: Array, b: Array) -> Array:
    """How differently the detectors of each layer are spread over concepts, (L,): total variation, 0 the same, 1 no
    concept in common. The order of units does not matter, nor how many there are. NaN where a layer has none.

    Args:
        a, b: concepts (L, U) as numbers, NaN for units that detect none.

    >>> spread(np.array([[0, 0, 1, np.nan]]), np.array([[1, 0, np.nan, np.nan]])).round(3).tolist()
    [0.167]
    """
    _check(a, b)
    most = int(np.nanmax(np.stack([a, b]), initial=0)) + 1
    shares = []
    for table in (a, b):
        known = np.isfinite(table)
        rows = np.broadcast_to(np.arange(len(table))[:, None], table.shape)[known]
        counts = np.zeros((len(table), most))
        np.add.at(counts, (rows, table[known].astype(int)), 1)
        total = counts.sum(axis=1, keepdims=True)
        shares.append(np.where(total > 0, counts / np.maximum(total, 1), np.nan))
    found: Array = np.abs(shares[0] - shares[1]).sum(axis=1) / 2
    return found


def still(a: Array, b: Array) -> Array:
    """Of the units of each layer that detect a concept in a, the share (L,) that detect the same one in b; NaN of none.

    >>> still(np.array([[0, 0, 1, np.nan]]), np.array([[0, 1, np.nan, 3]])).round(3).tolist()
    [0.333]
    """
    _check(a, b)
    return _ratio(a == b, np.isfinite(a))


def same(a: Array, b: Array) -> Array:
    """Of the units of each layer that detect a concept in both, the share (L,) that detect the same one; NaN of none.

    >>> same(np.array([[0, 0, 1, np.nan]]), np.array([[0, 1, np.nan, 3]])).tolist()
    [0.5]
    """
    _check(a, b)
    return _ratio(a == b, np.isfinite(a) & np.isfinite(b))


def _ratio(some: Array, of: Array) -> Array:
    count = of.sum(axis=1)
    found: Array = np.where(count > 0, (some & of).sum(axis=1) / np.maximum(count, 1), np.nan)
    return found


def _check(a: Array, b: Array) -> None:
    if a.shape != b.shape or a.ndim != 2:
        raise PrunescopeError(f"tables of concepts must have equal shapes (layers, units), got {a.shape} and {b.shape}")
