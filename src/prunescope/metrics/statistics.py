"""Intervals, floors and verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from prunescope.core.errors import PrunescopeError

Array = np.ndarray[Any, np.dtype[Any]]

#: Numbers in one block of a bootstrap: bounds memory at about 50 MB.
_BLOCK = 2_000_000
#: Items above which the normal interval of a mean is within the noise of 1,000 bootstrap draws.
_MANY = 2000


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
    for picks in _picks(n, draws, seed):
        rows = len(picks)
        places = picks + np.arange(rows)[:, None] * n
        yield np.bincount(places.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _picks(n: int, draws: int, seed: int) -> Iterator[Array]:
    """Blocks (some draws, n) of the items in each resample, with replacement."""
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK // max(1, n))
    for start in range(0, draws, step):
        yield generator.integers(n, size=(min(step, draws - start), n))


def bootstrap_mean(values: Array, *, seed: int, draws: int = 1000, level: float = 0.95) -> Interval:
    """Mean and percentile-bootstrap interval (Efron 1979) over items (N,); NaNs are left out and counted.

    Above 2,000 items the normal interval is given, cut at the smallest and largest value: there it agrees with the
    bootstrap to within the noise of the draws. A single value has no interval: its bounds are NaN.

    >>> bootstrap_mean(np.array([1.0, 3.0, np.nan]), seed=0).value
    2.0
    """
    found = values[np.isfinite(values)].astype(np.float64)
    dropped = len(values) - len(found)
    if not len(found):
        return Interval(math.nan, math.nan, math.nan, 0, dropped)
    mean = float(found.mean())
    if len(found) == 1:
        return Interval(mean, math.nan, math.nan, 1, dropped)
    if len(found) > _MANY:
        half = stats.norm.ppf((1 + level) / 2) * found.std(ddof=1) / math.sqrt(len(found))
        low, high = max(mean - half, found.min()), min(mean + half, found.max())
    else:
        means = np.concatenate([found[picks].mean(axis=1) for picks in _picks(len(found), draws, seed)])
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), len(found), dropped)


@dataclass(frozen=True)
class Spread:
    """A standard deviation between runs and the degrees of freedom behind it."""

    sd: float
    dof: float


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
    """Two one-sided tests of `n` differences: `p` is the larger of the two; small means |mean| < margin is shown."""

    mean: float
    margin: float
    p: float
    n: int

    def holds(self, alpha: float = 0.05) -> bool:
        """Whether equivalence within the margin is shown at level `alpha`."""
        return self.p < alpha


def equivalence(differences: Array, margin: float) -> Equivalence:
    """TOST (Schuirmann 1987) of paired differences against +-`margin`; p is NaN with fewer than two values.

    The run is the unit: one difference per run, not per image. Failing to show a difference is not equivalence.

    >>> equivalence(np.array([0.001, -0.002, 0.0, 0.002]), margin=0.01).holds()
    True
    """
    if not margin > 0:
        raise PrunescopeError(f"equivalence: the margin must be above 0, got {margin}")
    found = differences[np.isfinite(differences)].astype(np.float64)
    n = len(found)
    if n < 2:
        return Equivalence(float(found.mean()) if n else math.nan, margin, math.nan, n)
    mean, error = float(found.mean()), float(found.std(ddof=1)) / math.sqrt(n)
    if error == 0:
        return Equivalence(mean, margin, 0.0 if abs(mean) < margin else 1.0, n)
    p = float(stats.t.sf((margin - abs(mean)) / error, n - 1))  # the bound that is nearer decides
    return Equivalence(mean, margin, p, n)


def change_point(densities: Sequence[float], beyond: Sequence[bool]) -> float | None:
    """The first density, going down, from which on it and every lower one lie beyond the floor; None: there is none.

    >>> change_point([0.8, 0.5, 0.2, 0.1], [True, False, True, True])
    0.2
    """
    start = None
    for density, outside in sorted(zip(densities, beyond, strict=True)):
        if not outside:
            break
        start = float(density)
    return start
