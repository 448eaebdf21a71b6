"""Scores of units of two networks, layer by layer: tables (L, U) in, (L,) out; NaN where a layer has no such unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array


def mean_change(a: Array, b: Array) -> Array:
    """The mean over b's units of a layer minus that over a's (L,), whichever units they are; NaN where one has none.

    >>> mean_change(np.array([[0.5, 0.7, np.nan]]), np.array([[0.9, np.nan, np.nan]])).round(6).tolist()
    [0.3]
    """
    _check(a, b)
    return row_means(b) - row_means(a)


def paired_change(a: Array, b: Array) -> Array:
    """The mean change (L,) over the units that have a score in both; NaN where there is none.

    >>> paired_change(np.array([[0.5, 0.7, np.nan]]), np.array([[0.9, np.nan, 0.1]])).round(6).tolist()
    [0.4]
    """
    _check(a, b)
    return row_means(b.astype(np.float64) - a)


def row_means(table: Array) -> Array:
    """Mean of each row, such as a layer's units (L,), without what is NaN; NaN of none."""
    known = np.isfinite(table)
    count = known.sum(axis=1)
    total = np.where(known, table, 0).sum(axis=1, dtype=np.float64)
    found: Array = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return found


def known_mean(values: Array) -> float:
    """Mean of the finite values; NaN of none.

    >>> known_mean(np.array([1.0, np.nan, 2.0]))
    1.5
    """
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else float("nan")


def by_layer(values: Array, widths: Mapping[str, int]) -> Array:
    """A value of every unit (U,) as (layers, units of the widest), NaN behind the end of the narrower.

    >>> by_layer(np.array([1.0, 2.0, 3.0]), {"first": 2, "second": 1}).tolist()
    [[1.0, 2.0], [3.0, nan]]
    """
    return padded(np.split(values, np.cumsum(list(widths.values()))[:-1]))


def padded(parts: Sequence[Array]) -> Array:
    """Rows of different lengths as a table (L, widest), NaN behind the end of the shorter."""
    found = np.full((len(parts), max(map(len, parts))), np.nan)
    for row, values in zip(found, parts, strict=True):
        row[: len(values)] = values
    return found


def _check(a: Array, b: Array) -> None:
    if a.shape != b.shape or a.ndim != 2:
        raise PrunescopeError(f"tables of units must have equal shapes (layers, units), got {a.shape} and {b.shape}")
