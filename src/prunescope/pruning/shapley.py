"""The fair share of accuracy of every unit of some layers: Shapley values of the network itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunescope.core.types import Array
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.units import Units, units_of
from prunescope.engine.without import Order, predictions
from prunescope.metrics.shapley import Shapley, shapley


@dataclass(frozen=True, eq=False)
class Credit:
    """Shapley values and whose they are.

    Attributes:
        units: (layer, channel) of each value.
        found: values, errors, and what they cost.
    """

    units: Order
    found: Shapley

    @property
    def order(self) -> Order:
        """Units from the least value on; ties: the earlier first."""
        return tuple(self.units[i] for i in np.argsort(self.found.values, kind="stable"))


def shapley_values(
    ablator: Ablator, layers: Sequence[str] | Units | None = None, *, budget: int, seed: int, **options: Any
) -> Credit:
    """What each unit of these layers adds to accuracy, averaged over the orders in which all of them may go (Ghorbani
    and Zou 2020, Neuron Shapley). Other layers are whole.

    Every set of units is asked of all the ablator's images; what lies before the layers runs once for `batch` sets.

    Args:
        layers: names of layers, or {layer: channels}; None: all.
        budget: most sets of units to ask for; an order takes one less than there are units.
        options: `antithetic`, `tolerance`, `patience` and `batch` of `metrics.shapley.shapley`.

    Raises:
        PrunescopeError: an unknown layer or channel, fewer than two units, or too small a budget.
    """
    chosen = units_of(ablator.channels, layers)
    units = tuple((layer, channel) for layer, channels in chosen.items() for channel in channels)
    split = ablator.split

    def accuracy(sets: Array) -> Array:
        asked: list[dict[str, list[int]]] = []
        for present in sets:
            gone: dict[str, list[int]] = {layer: [] for layer in chosen}
            for at in np.flatnonzero(~present):
                gone[units[at][0]].append(units[at][1])
            asked.append(gone)
        found: Array = (predictions(ablator, split, asked) == split.labels).double().mean(1).numpy()
        return found

    return Credit(units, shapley(accuracy, len(units), budget=budget, seed=seed, **options))
