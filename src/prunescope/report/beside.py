"""One probe's findings in a recipe's tickets beside the dense networks: means by density, and drift in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prunescope.metrics.families import FAMILIES
from prunescope.report.by_density import ByDensity, against
from prunescope.report.charts import sentence_case
from prunescope.report.glance import BEYOND, WITHIN
from prunescope.report.heat import HeatTable
from prunescope.report.measures import measures, within_range
from prunescope.report.measures import rows as rows_of
from prunescope.report.places import number, percent, ticket_rows
from prunescope.report.verdicts import Verdicts
from prunescope.study.results import Results


@dataclass(frozen=True)
class UnitView:
    """One recipe's tickets beside the dense networks; `drift` is the part of the verdicts that the probe has."""

    recipe: str
    words: tuple[str, ...]
    tables: tuple[HeatTable, ...]
    drift: Verdicts | None


class Beside(ByDensity):
    """One probe's tables and verdicts for one recipe.

    Attributes:
        key: of the probe.
    """

    def __init__(self, found: Results, key: str, recipe: str) -> None:
        super().__init__(found, recipe)
        self.found, self.key = found, key

    def table(
        self, rows: pd.DataFrame, of: str, column: str, title: str, note: str, *, most: int = 0, noun: str = "",
        form: Callable[[float], str] = percent,
    ) -> HeatTable:  # fmt: skip
        """A row for each of `of`; of more than `most` (0: all), called `noun`, those that are largest in the last
        column."""
        names, values, ends = self.means(rows, of, column)
        if most and len(names) > most:
            note += f" Of {len(names)} {noun}."
            order = np.argsort(-np.nan_to_num(values[:, -1]), kind="stable")[:most]
            names, values, ends = [names[i] for i in order], values[order], ends[order]
        level = against(float(np.nanmax(np.abs(values), initial=0)))
        return self.heat((names, values, ends), title, note, corner=of, form=form, level=level)

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
