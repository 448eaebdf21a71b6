"""The concept view: top concepts of every class, dense beside the tickets, and how their ranks move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from prunescope.core.types import Record
from prunescope.report.charts import Figure, bump_chart
from prunescope.study.plan import Point
from prunescope.study.results import Results


@dataclass(frozen=True)
class Cell:
    """One concept in a class's list: name, contribution, and how often a bootstrap puts it among the top."""

    name: str
    contribution: float
    frequency: float
    shared: bool


@dataclass(frozen=True)
class Table:
    """Top concepts of every class in the networks of one recipe and seed."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[Cell, ...], ...]], ...]
    bumps: tuple[tuple[str, Figure], ...]
    notes: tuple[str, ...]


def concept_tables(results: Results) -> list[Table]:
    """One table per recipe, for its first ticket seed. Empty without a probe of concept contributions."""
    probe = next((key for key, item in results.study.probes.items() if "class.contributions" in item.distances), None)
    if probe is None or not results.study.seeds.tickets:
        return []
    seed = results.study.seeds.tickets[0]
    dense = next((p for p in results.points if p.role == "dense" and p.seed == seed), None)
    found = []
    for recipe in results.study.recipes:
        points = [p for p in results.points if (p.role, p.recipe, p.seed) == ("ticket", recipe.name, seed)]
        if dense and points:
            points.sort(key=lambda point: point.round)
            found.append(_table(results, probe, f"{recipe.name}, seed {seed}", [dense, *points]))
    return found


def _table(results: Results, probe: str, title: str, points: list[Point]) -> Table:
    records = [results.record(point, probe) for point in points]
    names = [str(name) for name in records[0].info["concept_names"]]
    columns = ("dense", *(f"{point.density:.1%}" for point in points[1:]))
    classes = [str(name) for name in results.data["classes"]]
    rows = []
    for k, name in enumerate(classes[:30]):
        lists = [_top(record, k, names) for record in records]
        known = {cell[0] for cell in lists[0]}
        rows.append((name, tuple(tuple(Cell(*cell, shared=cell[0] in known) for cell in cells) for cells in lists)))
    bumps = tuple((name, _bump(records, k, names, columns, name)) for k, name in enumerate(classes[:12]))
    level = str(records[0].info.get("concept_level", "image"))
    notes = [
        "Concepts are labelled per image."
        if level == "image"
        else "Concepts are labelled per class: a bottleneck on them can name the class whatever the network sees."
    ]
    good = np.asarray(records[0].arrays["concept.good"])
    bad = [name for name, fine in zip(names, good, strict=True) if not fine]
    if bad:
        notes.append(f"Not readable from the dense network (quality gate), left out there: {', '.join(bad)}.")
    return Table(title, columns, tuple(rows), bumps, tuple(notes))


def _top(record: Record, k: int, names: list[str]) -> list[tuple[str, float, float]]:
    top, frequency = record.arrays["class.top"][k], record.arrays["class.top_frequency"][k]
    values = record.arrays["class.contributions"][k]
    return [(names[i], float(values[i]), float(f)) for i, f in zip(top.tolist(), frequency, strict=True) if i >= 0]


def _bump(records: list[Record], k: int, names: list[str], columns: tuple[str, ...], title: str) -> Figure:
    """Ranks by contribution of every concept that is ever among the top five."""
    count = 5
    ranks: dict[str, list[float | None]] = {}
    places: list[dict[int, int]] = []
    for record in records:
        values: np.ndarray[Any, Any] = np.asarray(record.arrays["class.contributions"][k])
        order = np.argsort(-values, kind="stable")
        places.append({int(i): rank for rank, i in enumerate(order.tolist(), start=1) if values[i] > 0})
    shown = sorted({i for place in places for i, rank in place.items() if rank <= count})
    for i in shown:
        ranks[names[i]] = [place[i] if place.get(i, count + 1) <= count else None for place in places]
    return bump_chart(ranks, columns, title=title, top=count)
