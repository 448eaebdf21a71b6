"""What was asked to be kept, what is kept, and what of it can act: every recipe, round by round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from prunescope.report.collapsed import Ended, ended
from prunescope.report.places import percent, recipes_cut, ticket_rows, units
from prunescope.study.results import Results

COLUMNS = (
    "recipe", "round", "asked for", "weights kept", "effective", "filters without weights", "empty layers",
    "cut-off layers",
)  # fmt: skip
EFFECTIVE = (
    "Effective density counts only the kept weights that a signal can pass on its way from the input to an output; "
    "a layer is empty when it has no weights left, and cut off when none that it has is on such a way."
)


def sparsity(found: Results) -> list[tuple[str, ...]]:
    """Rows under `COLUMNS`, one per recipe and round: means over seeds; of layers, the range over seeds."""
    return [row for recipe in recipes_cut(found) for row in _recipe(found, recipe)]


def _recipe(found: Results, recipe: str) -> Iterator[tuple[str, ...]]:
    layers = dict(tuple(ticket_rows(found.layers, recipe).groupby("round")))
    for number, runs in ticket_rows(found.runs, recipe).groupby("round"):
        rows: pd.DataFrame = layers[number]
        seeds = ended(rows)
        count = rows["layer"].nunique()
        known = bool(rows["effective"].notna().all())
        yield (
            recipe, str(number), f"{percent(runs['target'].iloc[0])} of the {units(found, recipe)}",
            percent(runs["density"].mean()), percent(runs["effective"].mean()),
            percent(rows["dead_outputs"].sum() / rows["outputs"].sum()), _layers(seeds, "empty", count),
            _layers(seeds, "cut off", count) if known else percent(np.nan),
        )  # fmt: skip


def _layers(seeds: Ended, how: str, count: int) -> str:
    """`0 of 20`, or `1 to 3 of 20`."""
    counts = [sum(ending == how for ending in layers.values()) for layers in seeds.values()]
    return f"{_range(counts)} of {count}"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
