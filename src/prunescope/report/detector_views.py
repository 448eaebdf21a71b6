"""What units detect: detectors and their concepts by layer and category, tickets beside the dense networks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from prunescope.core.types import Record
from prunescope.report.beside import Beside, UnitView
from prunescope.report.by_density import span
from prunescope.report.detector_rows import ALL, detected, detector_probes, detector_rows
from prunescope.report.places import dense_points, number, percent, recipes_done, ticket_rows, tickets
from prunescope.report.verdicts import Verdicts, verdicts
from prunescope.study.results import Results

#: Concepts named in a sentence, at most.
_NAMED = 8

LEAD = (
    "A unit is active where its map is largest. It detects the concept whose labelled pixels overlap most with these "
    "places (Network Dissection), if the overlap is above a threshold. A small overlap comes about by chance, too: "
    "beyond chance are detectors that overlap more than with the labels of other images in any draw. Units that no "
    "image changes are apart. It says what single units answer to, not that the network needs them, so no answer above "
    "rests on it."
)


def detector_views(found: Results) -> list[UnitView]:
    """One per probe that dissects and recipe of which tickets are done; none without such a probe."""
    keys = detector_probes(found)
    if not keys:
        return []
    rows, judged = detector_rows(found), verdicts(found)
    return [
        _View(found, key, recipe, rows[rows["probe"] == key]).made(judged)
        for key in keys
        for recipe in recipes_done(found)
    ]


class _View(Beside):
    def __init__(self, found: Results, key: str, recipe: str, rows: pd.DataFrame) -> None:
        super().__init__(found, key, recipe)
        scored = rows["units"] - rows["dead"] - rows["tied"]
        some = scored.where(scored > 0)
        self.rows = rows.assign(
            share=rows["detectors"] / some, sure=rows["beyond"] / some, gone=rows["dead"] / rows["units"]
        )  # fmt: skip

    def made(self, judged: list[Verdicts]) -> UnitView:
        title = self.recipe if self.key == "dissection" else f"{self.recipe} ({self.key})"
        layers = self.rows[(self.rows["category"] == ALL) & (self.rows["layer"] != ALL)]
        kinds = self.rows[(self.rows["layer"] == ALL) & (self.rows["category"] != ALL)]
        scored = f"Share of the scored units. {self.how}"
        tables = (
            self.table(layers, "layer", "sure", f"Units that detect a concept beyond chance, {title}", scored),
            self.table(kinds, "category", "concepts_beyond", f"Concepts that are detected beyond chance, {title}",
                      f"How many of a category, by units of any layer. {self.how}", form=_count),
            self.table(layers, "layer", "share", f"Units above the threshold, by chance or not, {title}", scored),
            self.table(kinds, "category", "beyond", f"Detectors beyond chance by what they detect, {title}",
                      f"How many units of all layers. {self.how}", form=_count),
            self.table(layers, "layer", "iou", f"Overlap with the best concept, {title}",
                      f"Intersection over union, mean of the scored units. {self.how}", form=number),
            self.table(layers, "layer", "gone", f"Units that no image changes, {title}",
                      f"Share of a layer's. {self.how}"),
        )  # fmt: skip
        shown = tuple(table for table in tables if any(cell.level for _, cells in table.rows for cell in cells))
        words = (*self._units(), *self._concepts(), *self._left_out(), *self.drifted())
        return UnitView(title, words, shown, self.lines(judged))

    def _records(self) -> tuple[list[Record], list[Record]]:
        """Of the dense networks, and of the tickets with the lowest density."""
        mine = tickets(self.found, self.recipe)
        last = [point for point in mine if point.round == max(p.round for p in mine)]
        first, second = (
            [self.found.record(p, self.key) for p in points] for points in (dense_points(self.found), last)
        )
        return first, second

    def _units(self) -> Iterator[str]:
        """How many detect something, and how many would by chance."""
        whole = self.rows[(self.rows["layer"] == ALL) & (self.rows["category"] == ALL)]
        dense, mine = whole[whole["role"] == "dense"], ticket_rows(whole, self.recipe)
        last = mine[mine["round"] == mine["round"].max()].mean(numeric_only=True)
        told = self._records()[1]
        info, chance = told[0].info, pd.Series([record.metrics["detectors_by_chance"] for record in told])
        yield (
            f"With {self.last} of the {self.kept}, no image changes {percent(last['gone'])} of the units. Of those "
            f"scored {percent(last['share'])} overlap with a concept by more than {info['threshold']:g} (dense: "
            f"{span(dense['share'])}); with the labels of other images {percent(float(chance.mean()))} would. "
            f"{_count(last['beyond'])} units, {percent(last['sure'])}, detect a concept beyond chance (dense: "
            f"{span(dense['beyond'], _count)}, {span(dense['sure'])}), measured on {info['images']:,} {info['split']} "
            f"images and {info['draws']} draws."
        )

    def _concepts(self) -> Iterator[str]:
        """How many concepts are detected, and which are lost or new."""
        whole = self.rows[(self.rows["layer"] == ALL) & (self.rows["category"] == ALL)]
        dense, mine = whole[whole["role"] == "dense"], ticket_rows(whole, self.recipe)
        last = float(mine[mine["round"] == mine["round"].max()]["concepts_beyond"].mean())
        told = f"They detect {_count(last)} concepts (dense: {span(dense['concepts_beyond'], _count)})"
        before, after = (set().union(*map(detected, records)) for records in self._records())
        changes = [f"{word} {_listed(names)}" for word, names in (
            ("no ticket detects any more", before - after), ("only tickets detect", after - before),
        ) if names]  # fmt: skip
        yield "; ".join([told, *changes]) + "."

    def _left_out(self) -> Iterator[str]:
        """Concepts that could not be detected."""
        dense, mine = self._records()
        info = (dense or mine)[0].info
        if info["absent"]:
            yield f"No labelled pixel shows {_listed(set(info['absent']))}: left out."
        if info["out_of_reach"]:
            yield (
                f"Too large for a unit that is active at {percent(info['quantile'])} of the places to be above the "
                f"threshold: {_listed(set(info['out_of_reach']))}."
            )


def _count(value: float) -> str:
    """A mean of counts; "–" of none.

    >>> _count(100.0), _count(2.6667)
    ('100', '2.7')
    """
    return f"{value:.1f}".removesuffix(".0") if np.isfinite(value) else "–"


def _listed(names: set[str]) -> str:
    shown = sorted(names)
    return ", ".join(shown[:_NAMED]) + (f" and {len(shown) - _NAMED} more" if len(shown) > _NAMED else "")
