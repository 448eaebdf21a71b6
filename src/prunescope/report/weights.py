"""Where the weights go: density of every layer after every round."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunescope.report.heat import HeatTable, shares
from prunescope.report.places import percent, recipes_done, ticket_rows
from prunescope.study.results import Results


def layer_tables(found: Results) -> list[HeatTable]:
    """One table per recipe, means over seeds."""
    return [] if found.layers.empty else [_table(found, recipe) for recipe in recipes_done(found)]


def _table(found: Results, recipe: str) -> HeatTable:
    rows = ticket_rows(found.layers, recipe)
    names = list(dict.fromkeys(rows["layer"]))
    table = rows.pivot_table(index="layer", columns="round", values="density", aggfunc="mean").reindex(names)
    asked: dict[Any, str] = {point.round: percent(point.density) for point in found.points if point.recipe == recipe}
    values = table.to_numpy(dtype=np.float64)
    return HeatTable(
        f"Density of every layer, {recipe}", "Weights kept, mean over seeds. Columns: density of the whole network.",
        "layer", tuple(asked[number] for number in table.columns),
        shares(values, values, [str(name).removesuffix(".weight") for name in names]),
    )  # fmt: skip
