"""What changed in the decisions: agreement, flips, and the images that pruning hits most."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def agreement(a: Array, b: Array) -> Array:
    """1.0 where both networks predict the same class, else 0.0; (N,)."""
    return (a == b).astype(np.float64)


def flips(before: Array, after: Array, classes: int) -> Array:
    """Counts (C, C): images that the first network puts into the row's class and the second into the column's.

    >>> flips(np.array([0, 0, 1]), np.array([0, 1, 1]), classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (before, after), 1)
    return table


def modal(predictions: Array, classes: int) -> Array:
    """The most frequent prediction of several networks, (runs, N) -> (N,); of equally frequent ones the first class."""
    counts = np.stack([(predictions == k).sum(axis=0) for k in range(classes)])
    found: Array = counts.argmax(axis=0)
    return found


def pies(dense: Array, pruned: Array, classes: int) -> Array:
    """Pruning identified exemplars (Hooker et al. 2019): images whose modal prediction differs between the dense and
    the pruned networks; (runs, N) each -> bool (N,).

    Meant for populations: with one run on each side it is every flip, and with two a mode is often a tie.
    """
    return modal(dense, classes) != modal(pruned, classes)


def flip_share(before: Array, after: Array) -> Array:
    """How hard each image is hit: share of pairs of networks that decide differently, (pairs, N) -> (N,), 0 to 1."""
    found: Array = (before != after).mean(axis=0)
    return found
