"""The noise floor: is a drift more than other seeds explain?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from prunescope.core.types import Estimate
from prunescope.metrics.statistics import Spread, t_interval
from prunescope.study.drift import DriftRow

Array = np.ndarray[Any, np.dtype[Any]]
Floor = tuple[float, float]
Verdict = Literal["within the floor", "beyond the floor", "undecided", "no floor"]


def noise_floor(values: Array, *, higher_is_better: bool | None = True) -> Floor | None:
    """The range of the drift between dense networks that differ only in seed, over all their pairs.

    From k seeds come k(k-1)/2 pairs, which share networks and so are not independent: more seeds make a better floor,
    and with a single pair there is none. For a difference (`higher_is_better` None) the sign of a pair depends on
    which network is named first, so the range is taken to both sides of 0.
    """
    found = values[np.isfinite(values)].astype(np.float64)
    if len(found) < 2:
        return None
    if higher_is_better is None:
        reach = float(np.abs(found).max())
        return -reach, reach
    return float(found.min()), float(found.max())


def floors(pairs: Iterable[Iterable[DriftRow]]) -> dict[tuple[str, ...], Floor]:
    """Noise floor of every measure, from the drift of pairs of dense networks: {`DriftRow.measure`: (low, high)}."""
    values: dict[tuple[str, ...], list[Estimate]] = {}
    for rows in pairs:
        for row in rows:
            values.setdefault(row.measure, []).append(row.estimate)
    found = {
        measure: noise_floor(np.array([e.value for e in group]), higher_is_better=group[0].higher_is_better)
        for measure, group in values.items()
    }
    return {measure: floor for measure, floor in found.items() if floor is not None}


def with_floor(rows: Iterable[DriftRow], floor: Mapping[tuple[str, ...], Floor]) -> list[DriftRow]:
    """The rows with the floor of their measure in their estimate; None where there is none."""
    return [replace(row, estimate=replace(row.estimate, floor=floor.get(row.measure))) for row in rows]


def over_seeds(values: Array, *, floor: Floor | None, spread: Spread | None = None) -> Estimate:
    """Mean over runs with Student's interval: the run is the unit of a claim.

    Args:
        spread: between runs, pooled over a recipe's rounds: two or three runs alone know little of it.
    """
    found = t_interval(values, spread)
    return Estimate("", found.value, found.low, found.high, found.n, floor=floor, dropped=found.dropped)


def verdict(estimate: Estimate, *, higher_is_better: bool | None) -> Verdict:
    """Whether a drift is more than other seeds explain.

    `within the floor`: the value is no worse than the floor's worse end. `beyond the floor`: value and the better end
    of its interval are both worse. `undecided`: the value is worse, but its interval reaches into the floor, or there
    is only one run. For a difference (`higher_is_better` None) either end of the floor is the worse one.

    Careful rather than keen: in simulated studies with 3 dense seeds and 2 tickets a ticket no farther off than
    another seed is called beyond the floor less than once in 50, one that is 3 standard deviations of a pair farther
    about 7 times in 10 (tests/study/test_floor.py).

    >>> verdict(Estimate("", 0.5, 0.4, 0.6, 3, floor=(0.7, 0.9)), higher_is_better=True)
    'beyond the floor'
    """
    if estimate.floor is None or not np.isfinite(estimate.value):
        return "no floor"
    if higher_is_better is None:
        higher_is_better = estimate.value < sum(estimate.floor) / 2
    sign = 1 if higher_is_better else -1
    worst = estimate.floor[0] if higher_is_better else estimate.floor[1]
    if sign * estimate.value >= sign * worst:
        return "within the floor"
    better_end = estimate.high if higher_is_better else estimate.low
    return "beyond the floor" if np.isfinite(better_end) and sign * better_end < sign * worst else "undecided"


def equally_accurate(accuracy: Array, dense: Array, *, margin: float = 0.01) -> Array:
    """Marks runs whose accuracy lies at most `margin` below the dense networks' mean: where these drift, it is not
    because they became worse.

    >>> equally_accurate(np.array([0.90, 0.895, 0.85]), np.array([0.91, 0.89])).tolist()
    [True, True, False]
    """
    found: Array = accuracy >= dense.mean() - margin
    return found
