"""The concept view: top concepts of every class, dense beside the tickets, and how their ranks move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from prunescope.core.types import Array, Record
from prunescope.report.charts import Figure, bump_chart, sentence_case
from prunescope.report.heat import HeatTable, shares
from prunescope.report.places import dense_of, percent, recipes_done, spread_out, tickets, units
from prunescope.study.plan import Point
from prunescope.study.results import Results

#: Networks side by side, classes listed and charted, ranks charted: at most.
_COLUMNS, _LISTED, _CHARTED, _RANKS = 7, 30, 30, 5


@dataclass(frozen=True)
class Cell:
    """One concept in a class's list: contribution, how often a bootstrap lists it again ("" unknown), and whether the
    dense network lists it too; `known` tells what the data says of it (a cause, a shortcut)."""

    name: str
    contribution: str
    frequency: str
    shared: bool
    known: str


@dataclass(frozen=True)
class Table:
    """Top concepts of every class in the networks of one recipe and seed; `units` is what they keep shares of."""

    title: str
    key: str
    units: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[Cell, ...], ...]], ...]
    bumps: dict[str, Figure]
    quality: HeatTable
    notes: tuple[str, ...]


def concept_tables(found: Results) -> list[Table]:
    """One table per recipe and ticket seed. Empty without a probe of concept contributions."""
    probe = next((key for key, item in found.study.probes.items() if "class.contributions" in item.distances), None)
    if probe is None:
        return []
    shown = []
    for recipe in recipes_done(found):
        for seed in found.study.seeds.tickets:
            points, dense = tickets(found, recipe, seed), dense_of(found, seed)
            if dense and points:
                shown.append(_Networks(found, probe, [dense, *spread_out(points, _COLUMNS - 1)]).table(recipe, seed))
    return shown


class _Networks:
    """A dense network and its tickets, with their concept records."""

    def __init__(self, found: Results, probe: str, points: list[Point]) -> None:
        self.found = found
        self.records = [found.record(point, probe) for point in points]
        self.names = [str(name) for name in self.records[0].info["concept_names"]]
        self.classes = [str(name) for name in found.data["classes"]]
        self.columns = ("dense", *(percent(point.density) for point in points[1:]))
        info = found.data["info"]
        self.known = dict.fromkeys(map(str, info.get("causal_concepts", ())), "cause")
        self.known |= dict.fromkeys(map(str, info.get("spurious_concepts", ())), "shortcut")

    def table(self, recipe: str, seed: int) -> Table:
        kept = units(self.found, recipe)
        lists = [(name, self.lists(k)) for k, name in enumerate(self.classes[:_LISTED])]
        bumps = {name: self.bump(k, name, kept) for k, name in enumerate(self.classes[:_CHARTED])}
        title = f"{recipe}, seed {seed}"
        bumps = {name: chart for name, chart in bumps.items() if chart["data"]}
        key, quality = f"{recipe}/{seed}", self.quality(title)
        return Table(title, key, kept, self.columns, tuple(lists), bumps, quality, self.notes())

    def lists(self, k: int) -> tuple[tuple[Cell, ...], ...]:
        """The class's top concepts in every network."""
        first = set(self.records[0].arrays["class.top"][k].tolist())
        return tuple(self.cells(record, k, first) for record in self.records)

    def cells(self, record: Record, k: int, first: set[int]) -> tuple[Cell, ...]:
        values, top = record.arrays["class.contributions"][k], record.arrays["class.top"][k]
        often = record.arrays.get("class.top_frequency", np.full((k + 1, len(top)), np.nan))[k]
        return tuple(
            Cell(
                self.names[i], f"{values[i]:.2f}", f"{100 * share:.0f}\u00a0%" if np.isfinite(share) else "",
                i in first, self.known.get(self.names[i], ""),
            )
            for i, share in zip(top.tolist(), often, strict=True) if i >= 0
        )  # fmt: skip

    def bump(self, k: int, name: str, kept: str) -> Figure:
        """Ranks by contribution of every concept that is ever among the first ones of the class."""
        places = [_places(record.arrays["class.contributions"][k]) for record in self.records]
        shown = sorted({i for place in places for i, rank in place.items() if rank <= _RANKS}, key=_first_seen(places))
        ranks = {
            self.names[i]: [float(place[i]) if place.get(i, _RANKS + 1) <= _RANKS else None for place in places]
            for i in shown
        }
        return bump_chart(ranks, self.columns, title=f"Concepts that speak for {name}", top=_RANKS, units=kept)

    def quality(self, title: str) -> HeatTable:
        """How well each concept can be read from each network: held-out AUROC; 50 % is chance."""
        values: Array = np.stack([record.arrays["concept.auroc"] for record in self.records], axis=1)
        return HeatTable(
            f"How well concepts can be read, {title}", "AUROC on held-out images; 50 % is chance.", "concept",
            self.columns, shares(values, 2 * (values - 0.5), self.names),
        )  # fmt: skip

    def notes(self) -> tuple[str, ...]:
        info = self.records[0].info
        levels = {
            "image": "Concepts are labelled per image.",
            "class": "Concepts are labelled per class: a bottleneck can name the class whatever the network sees.",
        }
        notes = [str(info.get("concept_level_note") or levels.get(str(info.get("concept_level")), ""))]
        bad = [name for name, good in zip(self.names, self.records[0].arrays["concept.good"], strict=True) if not good]
        if bad:
            shown = ", ".join(bad[:12]) + (f" and {len(bad) - 12} more" if len(bad) > 12 else "")
            notes.append(f"Not readable from the dense network (quality gate), so left out there: {shown}.")
        notes += [_complete(self.records[0], self.columns[0]), _complete(self.records[-1], self.columns[-1])]
        notes += [str(record.info["warning"]) for record in self.records[:1] if record.info.get("warning")]
        if len(self.classes) > _LISTED:
            notes.append(f"The first {_LISTED} of {len(self.classes)} classes; the tables hold all.")
        return tuple(note for note in notes if note)


def _complete(record: Record, column: str) -> str:
    """Concept completeness in words; empty where there is none."""
    found, chance = (record.metrics.get(name, np.nan) for name in ("completeness", "random_completeness"))
    if not np.isfinite(found):
        return ""
    return (
        f"{sentence_case(column)}: rebuilt from the scores of its concepts alone, the network keeps {percent(found)} "
        f"of its accuracy above chance (from as many random directions: {percent(chance)})."
    )


def _places(values: Array) -> dict[int, int]:
    """{concept: rank, 1 first} of those that speak for a class."""
    order = np.argsort(-np.nan_to_num(values), kind="stable")
    return {int(i): rank for rank, i in enumerate(order.tolist(), start=1) if values[i] > 0}


def _first_seen(places: list[dict[int, int]]) -> Callable[[int], tuple[int, int]]:
    def key(concept: int) -> tuple[int, int]:
        return next((n, place[concept]) for n, place in enumerate(places) if concept in place)

    return key
