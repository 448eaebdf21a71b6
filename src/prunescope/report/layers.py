"""The layers of one network at a time: what the page's sortable table is filled from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from prunescope.report.places import percent, recipes_cut, spread_out, ticket_rows, tickets
from prunescope.study.plan import Point
from prunescope.study.results import Results

#: Rows on the page, over all networks, at most (about 25 bytes each); the tables hold all.
_ROWS = 8000
_SHAPE = ["layer", "total", "outputs", "inputs"]
_COUNTS = ["kept", "live", "dead_outputs", "dead_inputs"]


@dataclass(frozen=True)
class Layers:
    """What the page holds of layers.

    Attributes:
        networks: {recipe: {checkpoint: words for the menu}}.
        data: for the page's script; `shapes`: {recipe: [[layer, weights, outputs, inputs], ...]}, and `networks`:
            {checkpoint: [recipe, [[kept, live (-1: unknown), outputs and inputs without a weight], ...]]}.
    """

    networks: dict[str, dict[str, str]]
    data: dict[str, Any]


def layers(found: Results) -> Layers:
    """The tickets of every recipe, by round and seed; where they are too many, some rounds of the first seed."""
    networks, shapes, counts = dict[str, dict[str, str]](), dict[str, Any](), dict[str, Any]()
    recipes = recipes_cut(found)
    for recipe in recipes:
        points, tables = tickets(found, recipe), dict(tuple(ticket_rows(found.layers, recipe).groupby("checkpoint")))
        first = tables[points[0].checkpoint]
        shown = _some(points, max(2, _ROWS // len(recipes) // max(1, len(first))))
        networks[recipe] = {point.checkpoint: _words(point) for point in shown}
        shape = first.assign(layer=first["layer"].str.removesuffix(".weight"))[_SHAPE]
        shapes[recipe] = [list(row) for row in shape.itertuples(index=False, name=None)]
        counts |= {point.checkpoint: [recipe, _rows(tables[point.checkpoint])] for point in shown}
    return Layers(networks, {"shapes": shapes, "networks": counts})


def _words(point: Point) -> str:
    return f"{point.recipe}, round {point.round} ({percent(point.density)}), seed {point.seed}"


def _some(points: list[Point], limit: int) -> list[Point]:
    if len(points) <= limit:
        return points
    return spread_out([point for point in points if point.seed == points[0].seed], limit)


def _rows(table: pd.DataFrame) -> list[list[int]]:
    live = (table["effective"] * table["total"]).round().fillna(-1).astype(int)
    rows: list[list[int]] = table.assign(live=live)[_COUNTS].to_numpy().tolist()
    return rows
