"""The median of repeated measurements, with an interval that assumes nothing about how they scatter."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.metrics.statistics import Interval


def median_interval(values: Array, *, level: float = 0.95) -> Interval:
    """Median of the values (N,) and the narrowest symmetric pair of order statistics that covers it.

    The number of values below the true median is binomial (n, 1/2), whatever their distribution, so the l-th smallest
    and the l-th largest value enclose it with at least the asked probability (Conover 1999, section 3.2). With fewer
    than six values no pair reaches 95 %: the bounds are NaN.

    >>> median_interval(np.arange(1.0, 31.0))
    Interval(value=15.5, low=10.0, high=21.0, n=30, dropped=0)

    Raises:
        PrunescopeError: no values, or one that is not finite.
    """
    if not len(values) or not np.isfinite(values).all():
        raise PrunescopeError(f"a median needs finite values, got {len(values)} values")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    rank = int(stats.binom.ppf((1 - level) / 2, len(ordered), 0.5))  # P(fewer than `rank` below) < (1 - level) / 2
    low, high = (float(ordered[rank - 1]), float(ordered[-rank])) if rank else (math.nan, math.nan)
    return Interval(float(np.median(ordered)), low, high, len(ordered))
