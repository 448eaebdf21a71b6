"""Each unit's fair share of what all of them achieve together: the Shapley value, by sampling orders of removal.

A unit's value is its mean marginal contribution, v(with it) - v(without it), over all orders in which units may go.
Two units that can stand in for one another share what either alone would bring; removing them one at a time (CAR)
would call both useless.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array

#: bool (sets, units), True = the unit is there -> (sets,) floats: the network's accuracy with these units.
Value = Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Shapley:
    """Shapley values of U units from sampled orders.

    Attributes:
        values: (U,), in the unit of the value function. Without truncation they sum to `whole - nothing`.
        errors: their standard errors (U,); NaN with one sample.
        samples: orders drawn, or antithetic pairs of them.
        truncated: walks (one per order, two per pair) that were cut short.
        evaluations: sets whose value was asked for.
        whole, nothing: value of all units, and of none.
    """

    values: Array
    errors: Array
    samples: int
    truncated: int
    evaluations: int
    whole: float
    nothing: float


def shapley(
    value: Value,
    units: int,
    *,
    budget: int,
    seed: int,
    antithetic: bool = False,
    tolerance: float | None = None,
    patience: int = 5,
    batch: int = 32,
) -> Shapley:
    """Estimate Shapley values by permutation sampling (Castro, Gomez and Tejada 2009), as many orders as fit a budget.

    Each walk starts with all units and takes one away at a time, in a random order. Sample k draws its order from the
    seed and k alone.

    Args:
        value: of sets (n, units), asked for up to `batch` sets at once.
        budget: most sets to ask for; no sample begins that might not end within it.
        antithetic: follow each order by its reverse and average the two: unit i is met early once and late once.
        tolerance: end a walk when the value was within this of the empty set's for `patience` steps running, and count
            the units that are left as contributing nothing (Ghorbani and Zou 2020, Neuron Shapley). None: never.
        batch: walks side by side; no fewer than the two of a pair.

    Raises:
        PrunescopeError: fewer than two units, a value that is not finite, or a budget too small for one sample.
    """
    walks = 2 if antithetic else 1
    cost = walks * (units - 1)  # the ends of a walk are known
    if units < 2 or batch < 1 or patience < 1 or budget < 2 + cost:
        raise PrunescopeError(
            f"Shapley values need 2 units or more, batch and patience >= 1 and a budget of at least {2 + cost} sets "
            f"for one sample; got {units} units, batch {batch}, patience {patience}, budget {budget}"
        )
    whole, nothing = map(float, _asked(value, np.array([[True], [False]]).repeat(units, axis=1)))
    walker = _Walker(value, whole, nothing, -1.0 if tolerance is None else tolerance, patience)
    blocks: list[Array] = []
    drawn = 0
    while count := min(max(batch // walks, 1), (budget - 2 - walker.evaluations) // cost):
        orders = _orders(range(drawn, drawn + count), units, seed, antithetic)
        blocks.append(walker.walk(orders).reshape(count, walks, units).mean(axis=1))
        drawn += count
    found = np.concatenate(blocks)
    errors = found.std(axis=0, ddof=1) / np.sqrt(drawn) if drawn > 1 else np.full(units, np.nan)
    return Shapley(found.mean(axis=0), errors, drawn, walker.truncated, 2 + walker.evaluations, whole, nothing)


def _orders(samples: range, units: int, seed: int, antithetic: bool) -> Array:
    """Orders of removal (walks, units), those of a pair next to each other."""
    drawn = np.stack([numpy_generator(seed, "shapley", k).permutation(units) for k in samples])
    return np.stack([drawn, drawn[:, ::-1]], axis=1).reshape(-1, units) if antithetic else drawn


def _asked(value: Value, sets: Array) -> Array:
    found = np.asarray(value(sets), dtype=np.float64)
    if found.shape != (len(sets),) or not np.isfinite(found).all():
        raise PrunescopeError(
            f"Shapley values: the value function must give one finite number for each of {len(sets)} sets, "
            f"got shape {found.shape}: {found}"
        )
    return found


class _Walker:
    """Takes units away, several walks side by side, and counts what it asked for."""

    def __init__(self, value: Value, whole: float, nothing: float, tolerance: float, patience: int) -> None:
        self.value, self.whole, self.nothing = value, whole, nothing
        self.tolerance, self.patience = tolerance, patience
        self.evaluations = self.truncated = 0

    def walk(self, orders: Array) -> Array:
        """Marginal contributions (walks, units) along orders of removal (walks, units)."""
        present, marginals = np.ones(orders.shape, dtype=bool), np.zeros(orders.shape)
        before, near = np.full(len(orders), self.whole), np.zeros(len(orders), dtype=np.int64)
        going = np.arange(len(orders))
        for step in range(orders.shape[1] - 1):
            unit = orders[going, step]
            present[going, unit] = False
            after = _asked(self.value, present[going])
            self.evaluations += len(going)
            marginals[going, unit], before[going] = before[going] - after, after
            near[going] = np.where(np.abs(after - self.nothing) <= self.tolerance, near[going] + 1, 0)
            going = going[near[going] < self.patience]
            if not len(going):
                break
        marginals[going, orders[going, -1]] = before[going] - self.nothing
        self.truncated += len(orders) - len(going)
        return marginals
