"""Finding one's way in a study's results: which networks belong together, and how shares are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import pandas as pd

from prunescope.core.types import Record
from prunescope.study.plan import Point
from prunescope.study.results import Results
from prunescope.study.study import Study

T = TypeVar("T")


def percent(share: float) -> str:
    """A share for people; "–" when there is none.

    >>> percent(0.122), percent(0.5)
    ('12.2\\xa0%', '50\\xa0%')
    """
    if not math.isfinite(share):
        return "–"
    digits = 1 if abs(share) >= 0.001 or share == 0 else 3
    return f"{100 * share:.{digits}f}".removesuffix(".0").replace("-", "−") + "\u00a0%"


def number(value: float) -> str:
    """Three digits or so; "–" when there is none.

    >>> number(0.70169), number(-0.0032)
    ('0.702', '−0.003')
    """
    if not math.isfinite(value):
        return "–"
    return (f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}").replace("-", "−")


def performance_key(study: Study) -> str:
    """Key of the probe that holds the predictions; every study has one."""
    return next(key for key, probe in study.probes.items() if probe.name == "performance")


def recipes_done(found: Results) -> list[str]:
    """Names of the recipes of which a ticket is done, in the study's order."""
    have = {point.recipe for point in found.points if point.role == "ticket"}
    return [recipe.name for recipe in found.study.recipes if recipe.name in have]


def recipes_cut(found: Results) -> list[str]:
    """Those of them that had any weights to cut."""
    return [recipe for recipe in recipes_done(found) if len(ticket_rows(found.layers, recipe))]


def units(found: Results, recipe: str = "") -> str:
    """What densities are shares of: `weights`, `filters` ...; of several recipes `weights or filters`."""
    chosen = [item for item in found.study.recipes if recipe in ("", item.name)]
    return " or ".join(dict.fromkeys(item.counted for item in chosen)) or "weights"


def tickets(found: Results, recipe: str, seed: int | None = None) -> list[Point]:
    """Tickets of a recipe (of one seed), by round and seed."""
    chosen = [p for p in found.points if p.role == "ticket" and p.recipe == recipe and seed in (None, p.seed)]
    return sorted(chosen, key=lambda point: (point.round, point.seed))


def ticket_rows(table: pd.DataFrame, recipe: str) -> pd.DataFrame:
    """Rows of a recipe's tickets, in any table with `role` and `recipe`."""
    return table[(table["role"] == "ticket") & (table["recipe"] == recipe)]


def dense_points(found: Results) -> list[Point]:
    """The dense networks, by seed."""
    return sorted((p for p in found.points if p.role == "dense"), key=lambda point: point.seed)


def dense_of(found: Results, seed: int) -> Point | None:
    """The dense network of a seed; None when it is not complete."""
    return next((point for point in dense_points(found) if point.seed == seed), None)


def predictions(found: Results, point: Point) -> Record:
    """The `performance` record of a network."""
    return found.record(point, performance_key(found.study))


def spread_out(points: Sequence[T], limit: int) -> list[T]:
    """At most `limit` of the points, evenly chosen; first and last are among them."""
    if len(points) <= limit:
        return list(points)
    places = {round(i * (len(points) - 1) / (limit - 1)) for i in range(limit)}
    return [points[i] for i in sorted(places)]
