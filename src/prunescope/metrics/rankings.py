"""How alike two tables of contributions are, class by class: (C, K) of C classes and K concepts in, (C,) out.

A contribution above 0 speaks for the class, below 0 against it; 0 or NaN (a concept that the network's bottleneck does
not use) says nothing. A class whose contributions all say nothing on either side has no ranking: NaN.
The ranked list of a class holds the concepts that speak for it. The others are not in it: sparse bottlenecks use few
concepts, and whatever order the unused ones were given would look like agreement.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from prunescope.core.errors import PrunescopeError

Array = np.ndarray[Any, np.dtype[Any]]
Distance = Callable[[Array, Array], Array]

#: Concepts that count as "the top".
TOP = 5
#: Persistence of rank-biased overlap: the chance that a reader of the list goes on to the next line.
PERSISTENCE = 0.9


def _of_rows(function: Distance) -> Distance:
    """Checks shapes, reads NaN as 0, sets classes without a ranking to NaN."""

    @wraps(function)
    def wrapped(a: Array, b: Array) -> Array:
        if a.shape != b.shape or a.ndim != 2:
            raise PrunescopeError(f"contributions must have equal shapes (classes, concepts), got {a.shape}, {b.shape}")
        a, b = (np.nan_to_num(rows.astype(np.float64), nan=0.0) for rows in (a, b))
        found = (a != 0).any(axis=1) & (b != 0).any(axis=1)
        result = np.full(len(a), np.nan)
        if found.any():
            result[found] = function(a[found], b[found])
        return result

    return wrapped


def _places(rows: Array) -> Array:
    """Place of every concept in its class's ranked list, 0 first; K for those not in it. Of equal ones the first."""
    order = np.argsort(-rows, axis=1, kind="stable")
    places = np.argsort(order, axis=1, kind="stable")
    return np.where(rows > 0, places, rows.shape[1])


@_of_rows
def jaccard(a: Array, b: Array) -> Array:
    """Overlap (intersection over union) of the five concepts that speak most for a class, 0 to 1.

    Where fewer than five speak for it, of those; NaN where none does on either side.
    """
    top_a, top_b = _places(a) < min(TOP, a.shape[1]), _places(b) < min(TOP, a.shape[1])
    union = (top_a | top_b).sum(axis=1)
    return np.where(union > 0, (top_a & top_b).sum(axis=1) / np.maximum(union, 1), np.nan)


@_of_rows
def rbo(a: Array, b: Array) -> Array:
    """Rank-biased overlap of the ranked lists, extrapolated, also for lists of different lengths, 0 to 1.

    Webber, Moffat and Zobel 2010, eq. 32, with persistence 0.9: the first five places carry two thirds of the weight.
    0 where only one list has entries, NaN where both are empty.
    """
    p, concepts = PERSISTENCE, a.shape[1]
    later = np.maximum(_places(a), _places(b))  # 0-based: both lists hold the concept from depth later + 1 on
    depth = np.arange(1, concepts + 1)
    shared = (later[:, :, None] < depth).sum(axis=1)  # X_d
    length_a, length_b = (a > 0).sum(axis=1, keepdims=True), (b > 0).sum(axis=1, keepdims=True)
    short, long = np.minimum(length_a, length_b), np.maximum(length_a, length_b)
    some = np.maximum(short, 1)  # where the shorter list is empty nothing is shared
    at_short = np.take_along_axis(shared, some - 1, axis=1)
    at_long = np.take_along_axis(shared, np.maximum(long, 1) - 1, axis=1)
    agreement = shared / depth + np.where(depth > short, at_short * (depth - short) / (some * depth), 0)
    seen = (np.where(depth <= long, agreement, 0) * p**depth).sum(axis=1) * (1 - p) / p
    unseen = ((at_long - at_short) / np.maximum(long, 1) + at_short / some)[:, 0] * p ** long[:, 0]
    return np.where(long[:, 0] > 0, seen + unseen, np.nan)


@_of_rows
def kendall(a: Array, b: Array) -> Array:
    """Kendall's tau-b between the contributions of all concepts, -1 to 1; NaN when one side is constant."""
    return np.array([kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)])


@_of_rows
def sign_flips(a: Array, b: Array) -> Array:
    """Share of the concepts that speak for a class in one network and against it in the other, among those that say
    something in either, 0 to 1."""
    speaks = (a != 0) | (b != 0)
    return (np.sign(a) * np.sign(b) < 0).sum(axis=1) / speaks.sum(axis=1)


@_of_rows
def cosine(a: Array, b: Array) -> Array:
    """Cosine between the contributions, -1 to 1."""
    a, b = (rows / np.abs(rows).max(axis=1, keepdims=True) for rows in (a, b))
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
