"""From runs to a claim: supported, not supported or undecided, with the numbers behind it. The run is the unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.metrics.paired import holm
from prunescope.metrics.statistics import Interval, equivalence, t_interval

Outcome = Literal["supported", "not supported", "undecided"]


@dataclass(frozen=True)
class Claim:
    """That a measure differs between paired runs by more than a margin that was set before.

    Attributes:
        difference: mean over runs, with Student's 95 % interval.
        p, p_equal: of the t-test that there is no difference, and of the two one-sided tests that it lies beyond
            +-margin; both corrected (Holm) for the number of claims.
    """

    name: str
    outcome: Outcome
    difference: Interval
    margin: float
    p: float
    p_equal: float


def claims(differences: Mapping[str, Array], margin: float, *, alpha: float = 0.05) -> dict[str, Claim]:
    """Claims that a measure differs, each from one difference per run (ticket - dense of the same seed).

    `not supported`: equivalence within +-margin is shown (TOST), even where the difference is surely not 0.
    `supported`: a difference is shown, and its mean is at least the margin. `undecided`: neither, as with too few runs;
    nothing was shown is not the same as there is nothing.

    >>> claims({"CKA": np.array([0.2, 0.21, 0.19, 0.2])}, margin=0.05)["CKA"].outcome
    'supported'

    Raises:
        PrunescopeError: the margin is not above 0, or `alpha` not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise PrunescopeError(f"claims: alpha must lie between 0 and 1, got {alpha}")
    runs = {name: np.asarray(values, dtype=np.float64) for name, values in differences.items()}
    raw = np.array([[_p(values), equivalence(values, margin).p] for values in runs.values()]).reshape(-1, 2)
    found = {}
    for (name, values), (p, p_equal) in zip(runs.items(), holm(raw).tolist(), strict=True):
        mean = t_interval(values)
        shown = p < alpha and abs(mean.value) >= margin
        outcome: Outcome = "not supported" if p_equal < alpha else "supported" if shown else "undecided"
        found[name] = Claim(name, outcome, mean, margin, p, p_equal)
    return found


def _p(values: Array) -> float:
    """Student's t-test of a mean of 0; NaN for fewer than two runs."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return float("nan")
    error = known.std(ddof=1) / np.sqrt(len(known))
    if error == 0:
        return 0.0 if known[0] else 1.0
    return float(2 * stats.t.sf(abs(known.mean()) / error, len(known) - 1))


def permutation_within(
    x: Array, y: Array, groups: Sequence[str], *, seed: int = 0, draws: int = 10_000
) -> tuple[float, float]:
    """(slope of y on x within groups, p that there is none): x changes places among the runs of one method only.

    So methods that differ in both, such as those that were run at other rates, make no effect. The slope is that of
    least squares with an intercept per group. p counts the shuffles whose slope is at least as far from 0, and the data
    as one of them (Phipson and Smyth 2010), so it is never 0.

    Args:
        x, y: (runs,), such as rate and metric. Runs without a value in either are left out.
        groups: whose runs they are, (runs,).

    NaN where x or y does not vary within any group.

    Raises:
        PrunescopeError: other lengths, or no draws.
    """
    names = np.asarray(groups)
    if not x.shape == y.shape == names.shape or x.ndim != 1 or draws < 1:
        raise PrunescopeError(f"x, y and groups must be (runs,), got {x.shape}, {y.shape}, {names.shape}; draws > 0")
    known = np.isfinite(x) & np.isfinite(y)
    codes = np.unique(names[known], return_inverse=True)[1]
    inner, outer = (_within(np.asarray(values[known], dtype=np.float64), codes) for values in (x, y))
    energy = float(inner @ inner)
    if not energy > 0 or not outer @ outer > 0:
        return float("nan"), float("nan")
    generator, shuffled = np.random.default_rng(seed), np.empty((draws, len(inner)))
    for code in range(codes.max() + 1):
        members = np.flatnonzero(codes == code)
        shuffled[:, members] = generator.permuted(np.tile(inner[members], (draws, 1)), axis=1)
    observed = float(inner @ outer)
    reach = abs(observed) * (1 - 1e-9)  # shuffles that change nothing count, whatever the rounding
    return observed / energy, float((1 + (np.abs(shuffled @ outer) >= reach).sum()) / (1 + draws))


def _within(values: Array, codes: Array) -> Array:
    """Less the mean of the group; exactly 0 where the group does not vary."""
    found = values - (np.bincount(codes, values) / np.bincount(codes))[codes]
    for code in range(int(codes.max(initial=-1)) + 1):
        if np.ptp(values[codes == code]) == 0:
            found[codes == code] = 0
    return found
