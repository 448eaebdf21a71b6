"""Shares of counted things, with intervals."""

from __future__ import annotations

import math

from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.statistics import Interval


def share_interval(hits: int, n: int, *, level: float = 0.95) -> Interval:
    """Share of `hits` in `n` independent trials, with Wilson's score interval (Wilson 1927).

    Unlike the bootstrap's it has a width also where all trials, or none, are hits.

    >>> found = share_interval(0, 50)
    >>> found.low, round(found.high, 3)
    (0.0, 0.071)

    Raises:
        PrunescopeError: no trials, or more hits than trials.
    """
    if not 0 <= hits <= n or not n:
        raise PrunescopeError(f"a share needs 0 <= hits <= n and n > 0, got {hits} of {n}")
    z = float(stats.norm.ppf((1 + level) / 2))
    share, scale = hits / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (0.0 if not hits else middle - half), (1.0 if hits == n else middle + half)
    return Interval(share, low, high, n)
