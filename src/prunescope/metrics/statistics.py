"""Intervals, floors and verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Array = np.ndarray[Any, np.dtype[Any]]

#: Numbers in one block of bootstrap weights: bounds memory at about 64 MB.
_BLOCK = 8_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; `n` values went in, `dropped` had none (NaN)."""

    value: float
    low: float
    high: float
    n: int
    dropped: int = 0


def resamples(n: int, draws: int, seed: int) -> Iterator[Array]:
    """Blocks (some draws, n) of how often each of n items is in each bootstrap resample; `draws` rows in all."""
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK // max(1, n))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        picks = generator.integers(n, size=(rows, n)) + np.arange(rows)[:, None] * n
        yield np.bincount(picks.ravel(), minlength=rows * n).reshape(rows, n)


def bootstrap_mean(values: Array, *, seed: int, draws: int = 1000, level: float = 0.95) -> Interval:
    """Mean and percentile-bootstrap interval over items; NaNs are left out and counted.

    Above 2,000 items the normal interval is given: there it agrees with the bootstrap to within its own noise.
    """
    found = values[np.isfinite(values)].astype(np.float64)
    dropped = len(values) - len(found)
    if not len(found):
        return Interval(math.nan, math.nan, math.nan, 0, dropped)
    mean = float(found.mean())
    if len(found) == 1:
        return Interval(mean, math.nan, math.nan, 1, dropped)
    if len(found) > 2000:
        half = stats.norm.ppf((1 + level) / 2) * found.std(ddof=1) / math.sqrt(len(found))
        return Interval(mean, mean - half, mean + half, len(found), dropped)
    means = np.concatenate([block @ found for block in resamples(len(found), draws, seed)]) / len(found)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), len(found), dropped)


@dataclass(frozen=True)
class Spread:
    """A standard deviation between runs and the degrees of freedom behind it."""

    sd: float
    dof: int


def pooled_spread(groups: Sequence[Array]) -> Spread:
    """Standard deviation within groups, pooled over them: few runs at each of many densities tell of one spread.

    Assumes that the spread is the same in all groups. NaN when no group has two values.
    """
    found = [group[np.isfinite(group)].astype(np.float64) for group in groups]
    dof = sum(len(group) - 1 for group in found if len(group))
    if dof < 1:
        return Spread(math.nan, 0)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in found if len(group))
    return Spread(math.sqrt(squares / dof), dof)


def t_interval(values: Array, spread: Spread | None = None, level: float = 0.95) -> Interval:
    """Mean over runs with Student's interval.

    Args:
        spread: of the runs, when known from more groups than this one; None: estimated from `values` alone (the
            bounds are NaN for a single run).
    """
    found = values[np.isfinite(values)].astype(np.float64)
    dropped = len(values) - len(found)
    if not len(found):
        return Interval(math.nan, math.nan, math.nan, 0, dropped)
    mean = float(found.mean())
    spread = spread or pooled_spread([found])
    if not spread.dof:
        return Interval(mean, math.nan, math.nan, len(found), dropped)
    half = stats.t.ppf((1 + level) / 2, spread.dof) * spread.sd / math.sqrt(len(found))
    return Interval(mean, mean - half, mean + half, len(found), dropped)


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided tests: `p` is the larger one; small means |mean| < margin is shown."""

    mean: float
    margin: float
    p: float
    n: int

    def holds(self, alpha: float = 0.05) -> bool:
        """Whether equivalence within the margin is shown at level `alpha`."""
        return self.p < alpha


def equivalence(differences: Array, margin: float) -> Equivalence:
    """TOST (Schuirmann 1987) of paired differences against +-`margin`; p is NaN with fewer than two values."""
    found = differences[np.isfinite(differences)].astype(np.float64)
    if len(found) < 2:
        return Equivalence(float(found.mean()) if len(found) else math.nan, margin, math.nan, len(found))
    above = stats.ttest_1samp(found, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(found, margin, alternative="less").pvalue
    return Equivalence(float(found.mean()), margin, float(max(above, below)), len(found))
