"""Whether what was removed first is of one kind (colour-selective, say) more often than chance would have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array


@dataclass(frozen=True, eq=False)
class Enrichment:
    """Of the first `drawn` units removed, how many are of the kind. Arrays of equal length, one entry per number drawn.

    Attributes:
        drawn: units removed, n.
        hits: of the kind among them, k.
        expected: hits that chance would give, n K / N; K / N is the base rate.
        odds: odds ratio of being of the kind, removed to kept; 1/2 is added to every cell where one is empty
            (Haldane and Anscombe), and it is 1 where nothing can be told: all units, or none, removed or of the kind.
        p: chance of as many hits or more when units are removed at random (hypergeometric, one-sided).
    """

    drawn: Array
    hits: Array
    expected: Array
    odds: Array
    p: Array


def enrichment(of_the_kind: Array) -> Enrichment:
    """Over all numbers drawn, 1 to N.

    Args:
        of_the_kind: bool (N,): all units of a layer in the order of removal; those that stay come last.

    `p` is for one number drawn that was chosen beforehand: the smallest of the curve is no test.

    >>> found = enrichment(np.array([True, True, False, False]))
    >>> found.hits.tolist(), found.p.round(2).tolist()
    ([1, 2, 2, 2], [0.5, 0.17, 0.5, 1.0])
    """
    if of_the_kind.dtype != np.bool_ or of_the_kind.ndim != 1:
        raise PrunescopeError(
            f"enrichment needs one boolean per unit, got {of_the_kind.dtype} of shape {of_the_kind.shape}"
        )
    drawn, hits = np.arange(1, len(of_the_kind) + 1), np.cumsum(of_the_kind)
    total, n = int(of_the_kind.sum()), len(of_the_kind)
    p = np.clip(stats.hypergeom.sf(hits - 1, n, total, drawn), 0.0, 1.0)
    return Enrichment(drawn, hits, drawn * total / max(n, 1), _odds(hits, drawn, total, n), p)


def _odds(hits: Array, drawn: Array, total: int, n: int) -> Array:
    cells = np.stack([hits, n - drawn - total + hits, drawn - hits, total - hits]).astype(np.float64)
    a, d, b, c = cells + 0.5 * (cells == 0).any(axis=0)
    silent = (drawn == n) | (total in (0, n))
    return np.where(silent, 1.0, a * d / (b * c))
