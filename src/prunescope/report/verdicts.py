"""The table of verdicts: every measure at every density, recipe by recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from prunescope.report.charts import sentence_case
from prunescope.report.glance import JUDGED, Cell, floor_words
from prunescope.report.measures import APART, Measure, measures, rows, within_range
from prunescope.report.places import number, recipes_done, ticket_rows, units
from prunescope.study.results import MEASURE, Results


@dataclass(frozen=True)
class Line:
    """One measure.

    Attributes:
        only: there is no view of it over the other set of images.
        apart: no answer is built on its family.
    """

    title: str
    of: str
    unit: str
    floor: str
    subset: str
    only: bool
    figure: str
    cells: tuple[Cell | None, ...]
    apart: bool = False


@dataclass(frozen=True)
class Verdicts:
    """All measures of a recipe's tickets; `cells` of a line are aligned with `densities`, shares of `units`."""

    recipe: str
    units: str
    densities: tuple[float, ...]
    lines: tuple[Line, ...]


@lru_cache(maxsize=1)
def verdicts(found: Results) -> list[Verdicts]:
    """One table per recipe of which tickets are done."""
    pooled = within_range(found)
    return [] if pooled.empty else [_table(found, pooled, recipe) for recipe in recipes_done(found)]


def _table(found: Results, pooled: pd.DataFrame, recipe: str) -> Verdicts:
    mine = ticket_rows(pooled, recipe)
    densities = tuple(sorted(set(mine["density"]), reverse=True))
    shown = measures(found)
    views = mine.groupby(MEASURE[:3])["subset"].nunique()
    lines = [
        _line(rows(mine, item), item, densities, bool(views[item.key[:3]] == 1))
        for item in shown
        if len(rows(mine, item))
    ]
    return Verdicts(recipe, units(found, recipe), densities, tuple(lines))


def _line(table: pd.DataFrame, item: Measure, densities: tuple[float, ...], only: bool) -> Line:
    first = table.iloc[0]
    cells = {
        density: Cell(density, number(value), f"{number(low)} to {number(high)}", told)
        for density, value, low, high, told in table[JUDGED].itertuples(index=False, name=None)
    }
    floor = floor_words((first["floor_low"], first["floor_high"]))
    return Line(
        sentence_case(str(first["title"])), item.of, str(first["unit"]), floor, item.subset, only,
        f"drift/{item.figure}", tuple(cells.get(density) for density in densities),
        item.family in APART,
    )  # fmt: skip
