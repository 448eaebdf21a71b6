"""Whether what was removed was there twice: channels whose activation maps rise and fall together.

Correlations (C, C) are of two channels' activations over all images and places; channels that never vary have none
(NaN), are redundant with nothing and belong to no cluster. An `order` of removal lists channels, first removed first;
those that are not in it stay.
"""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array

#: Average correlation from which on channels are one cluster.
ALIKE = 0.8


def correlations(n: int, sums: Array, products: Array, constant: Array) -> Array:
    """Pearson correlations (C, C) from moments over n values per channel, float64, exactly 1 with itself.

    Args:
        sums: (C,) of the values, less one shift per channel that lies near its mean.
        products: (C, C) of the same shifted values.
        constant: bool (C,): channels with one value throughout; rounding would lend them a correlation.
    """
    covariance = products - np.outer(sums, sums) / n
    variance = np.where(constant, np.nan, np.diagonal(covariance))
    variance = np.where(variance > 0, variance, np.nan)
    found = np.clip(covariance / np.sqrt(np.outer(variance, variance)), -1, 1)
    np.fill_diagonal(found, np.where(np.isnan(variance), np.nan, 1.0))
    return found


def redundancy(correlations: Array, alive: Array) -> Array:
    """Largest correlation of each channel with another that survives (`alive`, bool (C,)), (C,), -1 to 1.

    NaN where it has none with any.
    """
    others = np.where(alive[None, :] & ~np.eye(len(alive), dtype=bool), correlations, np.nan)
    return _largest(others)


def redundancy_when_removed(correlations: Array, order: Array) -> Array:
    """The same for each channel of `order` (n,) at the moment of its removal, with those that survive it."""
    _require_order(order, len(correlations))
    gone = np.full(len(correlations), len(order))
    gone[order] = np.arange(len(order))
    later = gone[None, :] > np.arange(len(order))[:, None]
    return _largest(np.where(later, correlations[order], np.nan))


def _largest(rows: Array) -> Array:
    """NaN for rows without a number."""
    found = np.where(np.isnan(rows), -np.inf, rows).max(axis=1, initial=-np.inf)
    return np.where(np.isinf(found), np.nan, found)


def clusters(correlations: Array, threshold: float = ALIKE) -> Array:
    """Cluster of each channel (C,), 0 onwards by their first members; -1 for a channel without correlations.

    Average linkage (UPGMA): two clusters join while their members correlate by `threshold` or more on average. Joining
    whatever has one neighbour at the threshold (connected components) would chain filters together that have nothing
    in common, and then report diversity as kept that is lost.
    """
    varied = np.flatnonzero(~np.isnan(np.diagonal(correlations)))
    found = np.full(len(correlations), -1)
    if len(varied) < 2:
        found[varied] = 0
        return found
    distances = 1 - correlations[np.ix_(varied, varied)]
    tree = linkage(squareform((distances + distances.T) / 2, checks=False), "average")
    labels = fcluster(tree, 1 - threshold, "distance")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    found[varied] = np.argsort(np.argsort(first))[inverse]
    return found


def diversity_kept(clusters: Array, order: Array) -> Array:
    """Share of the clusters of which a channel survives, after 0, 1, ... n removals in `order` (n,): (n + 1,), 1 to 0.

    Raises:
        PrunescopeError: no channel belongs to a cluster, or `order` names one twice or one that is not there.
    """
    _require_order(order, len(clusters))
    if not (clusters >= 0).any():
        raise PrunescopeError("no channel of the layer varies: there is no diversity to keep")
    gone = np.full(len(clusters), len(order) + 1)
    gone[order] = np.arange(1, len(order) + 1)
    last = np.zeros(clusters.max() + 1, dtype=np.int64)
    np.maximum.at(last, clusters[clusters >= 0], gone[clusters >= 0])
    lost = np.cumsum(np.bincount(last, minlength=len(order) + 2))[: len(order) + 1]
    return 1 - lost / len(last)


def _require_order(order: Array, channels: int) -> None:
    if len(np.unique(order)) != len(order) or not np.isin(order, np.arange(channels)).all():
        raise PrunescopeError(f"an order of removal names each of {channels} channels (from 0) at most once")
