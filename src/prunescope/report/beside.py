"""One probe's findings in a recipe's tickets beside the dense networks: means by density, and drift in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prunescope.core.types import Array
from prunescope.metrics.families import FAMILIES
from prunescope.report.charts import sentence_case
from prunescope.report.glance import BEYOND, WITHIN
from prunescope.report.heat import HeatCell, HeatTable
from prunescope.report.measures import measures, within_range
from prunescope.report.measures import rows as rows_of
from prunescope.report.places import number, percent, ticket_rows, units
from prunescope.report.verdicts import Verdicts
from prunescope.study.results import Results


@dataclass(frozen=True)
class UnitView:
    """One recipe's tickets beside the dense networks; `drift` is the part of the verdicts that the probe has."""

    recipe: str
    words: tuple[str, ...]
    tables: tuple[HeatTable, ...]
    drift: Verdicts | None


class Beside:
    """Tables with columns `role`, `recipe`, `seed`, `round` and `density`, read for one recipe.

    Attributes:
        key, recipe: of the probe; whose tickets.
        kept: what densities are shares of.
        rounds: {round: its density in words}, 0 for the dense networks.
        last: the lowest density.
    """

    def __init__(self, found: Results, key: str, recipe: str, table: pd.DataFrame) -> None:
        self.found, self.key, self.recipe = found, key, recipe
        self.kept = units(found, recipe)
        asked = dict(zip(*(ticket_rows(table, recipe)[name] for name in ("round", "density")), strict=True))
        self.rounds = {0: "dense", **{round_: percent(asked[round_]) for round_ in sorted(asked)}}
        self.last = self.rounds[max(self.rounds)]

    @property
    def how(self) -> str:
        """What the tables' cells are."""
        return f"Means over seeds; in brackets the range of the dense networks; columns: {self.kept} kept."

    def means(self, table: pd.DataFrame, of: str, column: str) -> tuple[Array, list[str], Array]:
        """(means over seeds (rows, 1 + rounds), names of rows, lowest and highest of the dense networks (rows, 2))."""
        dense, mine = table[table["role"] == "dense"], ticket_rows(table, self.recipe)
        shown = pd.concat([dense, mine]).groupby([of, "round"], sort=False)[column].mean().unstack("round")
        names = list(dict.fromkeys(table[of]))
        ends = dense.groupby(of)[column].agg(["min", "max"]).reindex(names)
        return shown.reindex(index=names, columns=list(self.rounds)).to_numpy(float), names, ends.to_numpy(float)

    def heat(
        self, table: pd.DataFrame, of: str, column: str, title: str, note: str, *, most: int = 0, noun: str = "",
        text: Callable[[float], str] = percent,
    ) -> HeatTable:  # fmt: skip
        """A row for each of `of`; of more than `most` (0: all), called `noun`, those that are largest in the last
        column."""
        values, names, ends = self.means(table, of, column)
        top = np.nanmax(np.abs(values), initial=0) or 1.0
        order = list(range(len(names)))
        if most and len(order) > most:
            order = np.argsort(-np.nan_to_num(values[:, -1]), kind="stable")[:most].tolist()
            note += f" Of {len(names)} {noun}."
        rows = []
        for i in order:
            texts = [text(value) for value in values[i]]
            if np.ptp(ends[i]) > 0:
                texts[0] += f" ({text(ends[i, 0])} to {text(ends[i, 1])})"
            levels = np.clip(np.nan_to_num(values[i]) / top, -1, 1).round(2).tolist()
            rows.append((names[i], tuple(map(HeatCell, texts, levels))))
        return HeatTable(title, note, of, tuple(self.rounds.values()), tuple(rows))

    def drifted(self) -> Iterator[str]:
        """Drift at the last rate, by verdict."""
        pooled, told = within_range(self.found), dict[str, list[str]]()
        for item in measures(self.found):
            chosen = ticket_rows(rows_of(pooled, item), self.recipe)
            if item.probe != self.key or item.subset != "all" or not len(chosen):
                continue
            row = chosen.sort_values("round").iloc[-1]
            alone = next(d for d in FAMILIES[item.family] if d.name == item.distance).unit_by_unit
            kind = "unit by unit, for which other seeds are no measure" if alone else str(row["verdict"])
            kind = kind if np.isfinite(row["value"]) else "with nothing to compare"
            told.setdefault(kind, []).append(f"{row['title']} ({row['unit']} {number(row['value'])})")
        words = {
            WITHIN: "within the range of other seeds", BEYOND: "beyond what other seeds explain",
            "undecided": "worse than other seeds, but not surely", "no floor": "without a noise floor",
        }  # fmt: skip
        parts = [f"{words.get(kind, kind)}: {', '.join(titles)}" for kind, titles in told.items()]
        if parts:
            yield f"Drift from the dense network at {self.last}. " + sentence_case("; ".join(parts)) + "."

    def lines(self, judged: list[Verdicts]) -> Verdicts | None:
        """The verdicts on this probe's measures."""
        for table in judged:
            if table.recipe == self.recipe:
                lines = tuple(line for line in table.lines if line.figure.startswith(f"drift/{self.key}/"))
                return Verdicts(table.recipe, table.units, table.densities, lines) if lines else None
        return None


def span(values: pd.Series[float], text: Callable[[float], str] = percent) -> str:
    """`1 %`, or `1 % to 3 %`."""
    low, high = text(float(values.min())), text(float(values.max()))
    return low if low == high else f"{low} to {high}"
