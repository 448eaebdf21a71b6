"""Where the weights go: density and dead filters of every layer after every round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.types import Array
from prunescope.report.heat import HeatTable, shares
from prunescope.report.places import percent, recipes_cut, ticket_rows, units
from prunescope.study.results import Results


def layer_tables(found: Results) -> list[HeatTable]:
    """One table of densities per recipe, means over seeds, and one of dead filters where there are any."""
    return [table for recipe in recipes_cut(found) for table in _tables(found, recipe)]


def _tables(found: Results, recipe: str) -> list[HeatTable]:
    rows = ticket_rows(found.layers, recipe)
    rows = rows.assign(dead=rows["dead_outputs"] / rows["outputs"])
    asked: dict[Any, str] = {point.round: percent(point.density) for point in found.points if point.recipe == recipe}
    columns = tuple(asked[number] for number in sorted(set(rows["round"])))
    names = [str(name).removesuffix(".weight") for name in dict.fromkeys(rows["layer"])]
    density, dead, live = (_means(rows, column) for column in ("density", "dead", "effective"))
    nothing = (density == 0) | (live == 0)
    note = f"Mean over seeds; columns: {units(found, recipe)} kept, of the whole network."
    tables = [
        HeatTable(
            f"Density of every layer, {recipe}",
            f"Share of the layer's weights. {note}" + (" Red: passes nothing on any more." if nothing.any() else ""),
            "layer", columns, shares(density, np.where(nothing, -1, density), names),
        ),
        HeatTable(
            f"Filters without a kept weight, {recipe}", f"Share of the layer's outputs. {note}",
            "layer", columns, shares(dead, -dead, names),
        ),
    ]  # fmt: skip
    return tables if dead.any() else tables[:1]


def _means(rows: pd.DataFrame, column: str) -> Array:
    """(layers, rounds), means over seeds; NaN where nothing is known."""
    names = list(dict.fromkeys(rows["layer"]))
    means = rows.groupby(["layer", "round"])[column].mean().unstack("round")
    found: Array = means.reindex(names).to_numpy(dtype=np.float64)
    return found
