"""How sensitive classes are to concepts: whether a score stands out from chance, and how it moves between networks.

Tables are (C, L, K): classes, layers, concepts. NaN where there is no score (a concept that cannot be read from the
layer, a class without images, a layer where scores mean nothing).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import mannwhitneyu

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array

#: Pairs of scores up to which the exact distribution is counted out.
_EXACT = 10_000


def standing_out(scores: Array, chance: Array) -> Array:
    """Two-sided p (...,) of the Mann-Whitney test of repeats (..., R) against those of random vectors (..., M).

    Ranks, because shares pile up at 0 and 1 and there are few of them: if the concept is no more than a random set of
    images, all R + M scores are exchangeable, and the exact test holds whatever they are distributed like. With ties
    (which shares have), and for very many, the normal approximation, corrected for ties. 1 where all scores are equal;
    NaN where any is NaN.

    >>> standing_out(np.array([0.7, 0.8, 0.9]), np.array([0.1, 0.2, 0.3, 0.4])).round(4).item()
    0.0571
    """
    shape = scores.shape[:-1]
    x, y = scores.reshape(-1, scores.shape[-1]), np.broadcast_to(chance, (*shape, chance.shape[-1]))
    y = y.reshape(-1, chance.shape[-1])
    both = np.concatenate([x, y], axis=1)
    gaps = np.diff(np.sort(both, axis=1), axis=1)
    p, known = np.full(len(x), np.nan), np.isfinite(both).all(axis=1)
    p[known] = 1.0
    exact = (gaps > 0).all(axis=1) & (x.shape[1] * y.shape[1] <= _EXACT)
    for method, rows in (("exact", exact), ("asymptotic", ~exact)):
        chosen = known & rows & (gaps > 0).any(axis=1)
        if chosen.any():
            p[chosen] = mannwhitneyu(x[chosen], y[chosen], axis=1, method=method).pvalue
    return p.reshape(shape)


def difference(a: Array, b: Array) -> Array:
    """Mean absolute difference (C,) of a class's scores, 0 to 1, over what both networks have scores of."""
    _check(a, b)
    return _means(np.abs(b.astype(np.float64) - a))


def same_side(a: Array, b: Array) -> Array:
    """Share (C,) of a class's scores that lie on the same side of one half, over what both networks have scores of.

    A score of exactly one half lies on neither side, and agrees with none but its like.
    """
    _check(a, b)
    agree = (np.sign(a - 0.5) == np.sign(b - 0.5)).astype(np.float64)
    return _means(np.where(np.isfinite(a) & np.isfinite(b), agree, np.nan))


def same_found(a: Array, b: Array) -> Array:
    """Jaccard index (C,) of what stands out from chance: 1 (for the class), -1 (against it), 0 (does not).

    A concept that speaks for the class in one network and against it in the other is not shared. Over what was tested
    in both; NaN where nothing stands out in either.
    """
    _check(a, b)
    tested = np.isfinite(a) & np.isfinite(b)
    x, y = np.where(tested, a, 0), np.where(tested, b, 0)
    either = ((x != 0) | (y != 0)).sum(axis=(1, 2)) + ((x * y) < 0).sum(axis=(1, 2))  # on two sides: two things
    shared = ((x == y) & (x != 0)).sum(axis=(1, 2))
    found: Array = np.where(either > 0, shared / np.maximum(either, 1), np.nan)
    return found


def _means(table: Array) -> Array:
    """Over layers and concepts; NaN of none."""
    known = np.isfinite(table)
    count = known.sum(axis=(1, 2))
    total = np.where(known, table, 0).sum(axis=(1, 2))
    found: Array = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def _check(a: Array, b: Array) -> None:
    if a.shape != b.shape or a.ndim != 3:
        raise PrunescopeError(
            f"scores of concepts must have equal shapes (classes, layers, concepts), got {a.shape} and {b.shape}"
        )
