"""Units a person could read: MIS layer by layer, tickets beside the dense networks. Words first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from prunescope.core.types import Array, Record
from prunescope.report.boxes import box_chart
from prunescope.report.by_density import above_chance, against
from prunescope.report.charts import Figure
from prunescope.report.heat import HeatTable
from prunescope.report.mis_rows import mis_layers, rows_of_layers
from prunescope.report.places import dense_points, number, percent, recipes_done, spread_out, tickets
from prunescope.report.probe_rows import keys_of
from prunescope.report.readable_words import ReadableWords
from prunescope.report.verdicts import Verdicts, verdicts
from prunescope.study.results import Results

#: Networks beside the dense ones in a chart of boxes, at most.
_BOXES = 3
_KINDS = {"conv": "convolutions", "linear": "linear layers", "norm": "norms"}

LEAD = (
    "A task of a unit: images that drive it up, as many that drive it down, and two more, one of each kind. Whoever "
    "can tell which is which has understood something of the unit. A machine does it here, by how alike images look to "
    "a judge that never saw these networks (Zimmermann, Klindt and Brendel 2024). A half is chance. A high share says "
    "that a unit’s extreme images look alike; not that the unit matters, nor that the network is right."
)


@dataclass(frozen=True)
class ReadableView:
    """One recipe's tickets beside the dense networks.

    Attributes:
        charts: {kind of layer in words: key of its figure}; `figures` has them.
        drift: the verdicts that scores of units have.
    """

    title: str
    words: tuple[str, ...]
    tables: tuple[HeatTable, ...]
    drift: Verdicts | None
    charts: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)


def readable_views(found: Results) -> list[ReadableView]:
    """One per probe `mis` and recipe of which tickets are done; none without such a probe."""
    keys = keys_of(found, "mis")
    if not keys or not dense_points(found):
        return []
    layers, judged = mis_layers(found), verdicts(found)
    return [
        _View(found, key, recipe, layers[layers["probe"] == key]).made(judged)
        for key in keys
        for recipe in recipes_done(found)
    ]


class _View(ReadableWords):
    def made(self, judged: list[Verdicts]) -> ReadableView:
        charts, figures = {}, {}
        for kind, words in _KINDS.items():
            if kind in self.record.info["kinds"].values():
                charts[words] = f"mis/{self.key}/{self.recipe}/{kind}"
                figures[charts[words]] = self._boxes(kind, words)
        return ReadableView(self.title, tuple(self.words()), tuple(self._tables()), self.lines(judged), charts, figures)

    def _tables(self) -> Iterator[HeatTable]:
        title, how = self.title, self.how
        yield self._summary()
        for column, name in (
            ("mis", "MIS of a layer’s units"),
            ("accuracy", "Tasks of a layer’s units that are right"),
        ):
            form = number if column == "mis" else percent
            rows = self.means(self.layers, "layer", column)
            yield self.heat(rows, f"{name}, {title}", f"Of units with a score. {how}", form=form, level=above_chance)
        rows = self.means(self.layers, "layer", "unscored")
        yield self.heat(rows, f"Units without a score, {title}", f"Constant or tied, share of a layer’s. {how}")
        names, values, ends = self.means(self.layers, "layer", "paired_change")
        if np.isfinite(values).any():
            level = against(float(np.nanmax(np.abs(values))))
            note = f"Mean change of MIS, unit by unit, from the dense network. {how}"
            rows = (names, values, np.zeros_like(ends))
            yield self.heat(rows, f"Units that have a score in both, {title}", note, form=number, level=level)

    def _summary(self) -> HeatTable:
        """Every judge, kind and fixed layer at every density."""
        shown = {
            "accuracy": "right tasks, judge", "accuracy_second": "right tasks, second judge", "mis": "MIS, judge",
            "mis_second": "MIS, second judge", "agreement": "agreement of both (rank correlation)",
            **{f"mis_{kind}": f"MIS, {words}" for kind, words in _KINDS.items()},
            **{f"accuracy_{name}": f"right tasks, {name}" for name in self.control_names()},
            "dead": "constant units", "tied": "tied units",
        }  # fmt: skip
        shown = {name: words for name, words in shown.items() if name in self.runs and self.runs[name].notna().any()}
        long = self.runs.melt(["role", "recipe", "round"], list(shown), "measure")
        rows = self.means(long.assign(measure=long["measure"].map(shown)), "measure", "value")
        note = (
            "Means over layers of layer means, then over seeds; in brackets the range of the dense networks, which is "
            f"the floor. Columns: {self.kept} kept."
        )
        return self.heat(
            rows, f"At every density, {self.title}", note, corner="measure", form=number, level=np.zeros_like
        )  # fmt: skip

    def _boxes(self, kind: str, words: str) -> Figure:
        layers = [name for name, own in self.record.info["kinds"].items() if own == kind]
        groups = {"dense": self._values([self.found.record(p, self.key) for p in dense_points(self.found)], layers)}
        rounds = spread_out(sorted(set(self.columns) - {0}), _BOXES)
        for round_ in rounds:
            points = [point for point in tickets(self.found, self.recipe) if point.round == round_]
            records = [self.found.record(point, self.key) for point in points]
            groups[f"{self.columns[round_]} kept"] = self._values(records, layers)
        title = f"MIS of units, {words}, {self.title}"
        return box_chart(groups, layers, title=title, unit="MIS, all seeds", chance=0.5)

    def _values(self, records: list[Record], layers: list[str]) -> list[Array]:
        parts = [dict(rows_of_layers(record)) for record in records]
        return [
            np.concatenate(
                [record.arrays["unit.mis"][part[layer]] for record, part in zip(records, parts, strict=True)]
            )
            for layer in layers
        ]
