"""How alike two tables of contributions are, class by class: (C, K) of C classes and K concepts in, (C,) out.

A class whose contributions are all zero on either side has no ranking: NaN.
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
    @wraps(function)
    def wrapped(a: Array, b: Array) -> Array:
        if a.shape != b.shape or a.ndim != 2:
            raise PrunescopeError(f"contributions must have equal shapes (classes, concepts), got {a.shape}, {b.shape}")
        a, b = a.astype(np.float64), b.astype(np.float64)
        found = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1) & (a != 0).any(axis=1) & (b != 0).any(axis=1)
        result = np.full(len(a), np.nan)
        if found.any():
            result[found] = function(a[found], b[found])
        return result

    return wrapped


def _order(rows: Array) -> Array:
    """Concepts of each class by falling contribution; of equal ones the first."""
    found: Array = np.argsort(-rows, axis=1, kind="stable")
    return found


@_of_rows
def jaccard(a: Array, b: Array) -> Array:
    """Overlap (intersection over union) of the five concepts that speak most for a class, 0 to 1."""
    count = min(TOP, a.shape[1])
    tops = []
    for rows in (a, b):
        top = np.zeros(rows.shape, dtype=bool)
        np.put_along_axis(top, _order(rows)[:, :count], True, axis=1)
        tops.append(top)
    shared = (tops[0] & tops[1]).sum(axis=1)
    return shared / (2 * count - shared)


@_of_rows
def rbo(a: Array, b: Array) -> Array:
    """Rank-biased overlap of the whole rankings (Webber et al. 2010, eq. 32, extrapolated), 0 to 1."""
    concepts = a.shape[1]
    places = [np.argsort(_order(rows), axis=1, kind="stable") for rows in (a, b)]
    later = np.maximum(*places)  # at depth d (0-based) a concept is in both prefixes when its later place is <= d
    depth = np.arange(concepts)
    agreement = (later[:, :, None] <= depth).sum(axis=1) / (depth + 1)
    weights = (1 - PERSISTENCE) * PERSISTENCE**depth
    found: Array = agreement @ weights + agreement[:, -1] * PERSISTENCE**concepts
    return found


@_of_rows
def kendall(a: Array, b: Array) -> Array:
    """Kendall's tau-b between the contributions of all concepts, -1 to 1; NaN when one side is constant."""
    return np.array([kendalltau(x, y).statistic for x, y in zip(a, b, strict=True)])


@_of_rows
def sign_flips(a: Array, b: Array) -> Array:
    """Share of the concepts that speak for a class in one network and against it in the other, among those that speak
    in either, 0 to 1."""
    speaks = (a != 0) | (b != 0)
    return ((a * b) < 0).sum(axis=1) / speaks.sum(axis=1)


@_of_rows
def cosine(a: Array, b: Array) -> Array:
    """Cosine between the contributions, -1 to 1."""
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
