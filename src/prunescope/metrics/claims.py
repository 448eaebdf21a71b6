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
from prunescope.metrics.statistics import Interval, Spread, equivalence, pooled_spread, t_interval

Outcome = Literal["supported", "not supported", "undecided"]


#: How alike differences of one seed are that share their control: by half, where ticket and control vary as much.
_SHARED = 0.5


@dataclass(frozen=True)
class Evidence:
    """What speaks for and against one claim, before any correction.

    Attributes:
        effect: its size, with a 95 % interval.
        margin: from which size on it matters; set before.
        p, p_equal: of the test that there is no effect, and that it lies beyond +-margin.
    """

    effect: Interval
    margin: float
    p: float
    p_equal: float


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
    return judged({name: evidence(values, margin) for name, values in differences.items()}, alpha=alpha)


def judged(found: Mapping[str, Evidence], *, alpha: float = 0.05) -> dict[str, Claim]:
    """Outcomes as `claims` says, corrected for the number of all these claims, whatever they are about.

    Raises:
        PrunescopeError: `alpha` not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise PrunescopeError(f"claims: alpha must lie between 0 and 1, got {alpha}")
    raw = np.array([[item.p, item.p_equal] for item in found.values()]).reshape(-1, 2)
    made = {}
    for (name, item), (p, p_equal) in zip(found.items(), holm(raw).tolist(), strict=True):
        shown = p < alpha and abs(item.effect.value) >= item.margin
        outcome: Outcome = "not supported" if p_equal < alpha else "supported" if shown else "undecided"
        made[name] = Claim(name, outcome, item.effect, item.margin, p, p_equal)
    return made


def evidence(differences: Array, margin: float, spread: Spread | None = None) -> Evidence:
    """Of one difference per run: Student's t-test of a mean of 0, and TOST (`metrics.statistics.equivalence`).

    Args:
        spread: of the runs, when known from more than these (`shared_spread`); None: from these alone, and p is NaN for
            fewer than two.

    Raises:
        PrunescopeError: the margin is not above 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    if spread is None:
        return Evidence(t_interval(values), margin, _p(values), equivalence(values, margin).p)
    if not margin > 0:
        raise PrunescopeError(f"claims: the margin must be above 0, got {margin}")
    mean = t_interval(values, spread)
    error = spread.sd / np.sqrt(mean.n) if mean.n else float("nan")
    return Evidence(mean, margin, *p_values(mean.value, error, spread.dof, margin))


def p_values(value: float, error: float, dof: float, margin: float) -> tuple[float, float]:
    """(p that there is nothing, p that it lies beyond +-margin) of an estimate with its standard error.

    NaN without degrees of freedom.
    """
    if not dof > 0 or not np.isfinite([value, error]).all():
        return float("nan"), float("nan")
    if error == 0:
        return float(value == 0), float(abs(value) >= margin)
    t = np.array([abs(value), margin - abs(value)]) / error
    p, equal = stats.t.sf(t, dof) * [2, 1]
    return float(p), float(equal)


def shared_spread(differences: Sequence[Array]) -> Spread:
    """Standard deviation over seeds of differences from a control, pooled over densities, (seeds,) each.

    Two or three runs alone know little of their spread; it is assumed to be the same at all densities. Differences of
    one seed share its control, so R densities do not give R times the degrees of freedom: with a correlation of one
    half (ticket and control vary as much) they give R / (1 + (R - 1) / 4) times (Satterthwaite's, as in Box 1954).
    """
    found = pooled_spread(differences)
    used = sum(np.isfinite(item).sum() > 1 for item in differences)
    return Spread(found.sd, found.dof / (1 + (used - 1) * _SHARED**2)) if found.dof else found


def runs_needed(
    value: float, sd: float, margin: float, *, alpha: float = 0.05, power: float = 0.8, most: int = 1000
) -> int | None:
    """How many runs would decide, if mean and spread stayed: the fewest that show a difference (a mean of at least the
    margin) or equivalence (a smaller one) with this probability. None: more than `most`, or nothing is known.

    >>> runs_needed(0.03, 0.02, 0.01)
    6

    Args:
        alpha: divide it by the number of claims, which corrects as Holm's smallest p is.
    """
    if not np.isfinite([value, sd]).all() or not sd >= 0:
        return None
    differs = abs(value) >= margin
    lies = np.array([[abs(value)]] if differs else [[margin - value], [margin + value]])
    if sd == 0:
        return 2
    n = np.arange(2, most + 1)
    bound = stats.t.isf(alpha / 2 if differs else alpha, n - 1)
    reached = np.nan_to_num(stats.nct.sf(bound, n - 1, lies * np.sqrt(n) / sd), nan=1.0)  # far out scipy has none
    enough = np.flatnonzero(reached.sum(axis=0) - (len(lies) - 1) >= power)  # both of two: at least the sum less 1
    return int(n[enough[0]]) if len(enough) else None


def pooled_correlation(x: Array, y: Array) -> tuple[Interval, float]:
    """Pearson's r over all runs, whatever their method, with Fisher's 95 % interval, and the p that there is none.

    What is often published. It takes differences between methods for an effect, and hides an effect that all methods
    share behind them: see `permutation_within`. NaN where fewer than four runs have both, or one does not vary.

    Raises:
        PrunescopeError: other lengths.
    """
    if x.shape != y.shape or x.ndim != 1:
        raise PrunescopeError(f"a correlation needs two arrays (runs,), got {x.shape} and {y.shape}")
    known = np.isfinite(x) & np.isfinite(y)
    n, dropped, lost = int(known.sum()), int((~known).sum()), float("nan")
    if n < 4 or np.ptp(x[known]) == 0 or np.ptp(y[known]) == 0:
        return Interval(lost, lost, lost, n, dropped), lost
    found = stats.pearsonr(x[known], y[known])
    low, high = found.confidence_interval()
    return Interval(float(found.statistic), float(low), float(high), n, dropped), float(found.pvalue)


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
