"""Tables of one recipe whose columns are the dense networks and the recipe's densities."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from prunescope.core.types import Array
from prunescope.report.heat import HeatCell, HeatTable
from prunescope.report.places import percent, ticket_rows, tickets, units
from prunescope.study.results import Results


class ByDensity:
    """One recipe's tickets beside the dense networks.

    Attributes:
        columns: {round: heading}, 0 is dense.
        kept: what the densities are shares of.
    """

    def __init__(self, found: Results, recipe: str) -> None:
        self.recipe, self.kept = recipe, units(found, recipe)
        self.columns = {0: "dense", **{point.round: percent(point.density) for point in tickets(found, recipe)}}

    @property
    def last(self) -> str:
        """The lowest density."""
        return self.columns[max(self.columns)]

    @property
    def how(self) -> str:
        """What a cell is."""
        return f"Means over seeds; in brackets the range of the dense networks; columns: {self.kept} kept."

    def means(self, table: pd.DataFrame, of: str, column: str) -> tuple[list[str], Array, Array]:
        """Names of rows, means over seeds (rows, columns), lowest and highest of the dense networks (rows, 2)."""
        dense, mine = table[table["role"] == "dense"], ticket_rows(table, self.recipe)
        names = list(dict.fromkeys(table[of]))
        shown = pd.concat([dense, mine]).groupby([of, "round"], sort=False)[column].mean().unstack("round")
        ends = dense.groupby(of)[column].agg(["min", "max"]).reindex(names)
        return names, shown.reindex(index=names, columns=list(self.columns)).to_numpy(float), ends.to_numpy(float)

    def texts(self, values: Array, ends: Array, form: Callable[[float], str] = percent) -> list[str]:
        """Of one row: its cells in words, the dense one with its range."""
        found = [form(float(value)) for value in values]
        if np.ptp(ends) > 0:
            found[0] += f" ({form(float(ends[0]))} to {form(float(ends[1]))})"
        return found

    def heat(
        self,
        rows: tuple[list[str], Array, Array],
        title: str,
        note: str,
        *,
        corner: str = "layer",
        form: Callable[[float], str] = percent,
        level: Callable[[Array], Array] = lambda values: values,
    ) -> HeatTable:
        """What `means` found as a table; `level` tells how strongly values are coloured, -1 to 1."""
        cells = []
        for name, values, ends in zip(*rows, strict=True):
            strength = np.clip(np.nan_to_num(level(values)), -1, 1).round(2).tolist()
            cells.append((name, tuple(map(HeatCell, self.texts(values, ends, form), strength))))
        return HeatTable(title, note, corner, tuple(self.columns.values()), tuple(cells))


def above_chance(values: Array) -> Array:
    """Shares of right answers to two alternatives: 0.5 is no colour."""
    return 2 * values - 1


def against(largest: float) -> Callable[[Array], Array]:
    """Levels as shares of the largest value."""
    return lambda values: values / (largest or 1)


def span(values: Iterable[float], form: Callable[[float], str] = percent) -> str:
    """`1 %`, or `1 % to 3 %`; "–" of none."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "–"
    low, high = form(min(known)), form(max(known))
    return low if low == high else f"{low} to {high}"
