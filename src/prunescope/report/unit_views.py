"""Which units matter: CAR layer by layer and class by class, tickets beside the dense networks. Words first."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from prunescope.report.beside import Beside, UnitView
from prunescope.report.by_density import span
from prunescope.report.places import percent, recipes_done, ticket_rows
from prunescope.report.unit_rows import unit_classes, unit_layers, unit_probes
from prunescope.report.verdicts import Verdicts, verdicts
from prunescope.study.results import Results

#: Classes shown, at most: those that lose most.
_CLASSES = 40

LEAD = (
    "CAR of a unit is the network's accuracy less its accuracy without the unit. Units that are pruned away are apart: "
    "means and shares are over those that live. A unit matters when accuracy changes for sure without it (McNemar, "
    "Holm over all units). How the work is spread over units is not why a network decides, so no answer above rests on "
    "it: where fewer units do the same work, each must carry more."
)


def unit_views(found: Results) -> list[UnitView]:
    """One per probe of units and recipe of which tickets are done; none without such a probe."""
    keys = unit_probes(found)
    if not keys:
        return []
    layers, classes, judged = unit_layers(found), unit_classes(found), verdicts(found)
    return [
        _View(found, key, recipe, layers[layers["probe"] == key], classes[classes["probe"] == key]).made(judged)
        for key in keys
        for recipe in recipes_done(found)
    ]


class _View(Beside):
    def __init__(self, found: Results, key: str, recipe: str, layers: pd.DataFrame, classes: pd.DataFrame) -> None:
        super().__init__(found, key, recipe)
        self.layers, self.classes = layers, classes

    def made(self, judged: list[Verdicts]) -> UnitView:
        title = self.recipe if self.key == "car" else f"{self.recipe} ({self.key})"
        layers = self.layers.assign(living=self.layers["units"] - self.layers["dead"])
        layers["sure"] = (layers["mattering"] / layers["living"].where(layers["living"] > 0)).astype(float)
        layers["gone"] = layers["dead"] / layers["units"]
        tables = [
            self.table(layers, "layer", "sure", f"Units that matter, {title}", f"Share of the living ones. {self.how}"),
            self.table(layers, "layer", "car", f"Mean CAR of a layer's units, {title}", f"Of living units. {self.how}"),
            self.table(layers, "layer", "harm", f"Where the harm lies, {title}",
                      f"Share of all decisions that turn wrong, over all units. {self.how}"),
            self.table(layers, "layer", "gone", f"Units that are pruned away, {title}",
                      f"Share of a layer's. {self.how}"),
            self.table(self.classes, "class", "car", f"What a class loses without a unit, {title}",
                      f"Class CAR, mean over all living units. {self.how}", most=_CLASSES,
                      noun=f"classes the {_CLASSES} that lose most are shown"),
        ]  # fmt: skip
        tables = [table for table in tables if any(cell.level for _, cells in table.rows for cell in cells)]
        words = (*self._units(layers), *self._place(), *self._harmed(), *self.drifted())
        return UnitView(title, words, tuple(tables), self.lines(judged))

    def _units(self, layers: pd.DataFrame) -> Iterator[str]:
        """How many are gone, how many of the others matter, and how much each does."""
        counts = layers.groupby(["role", "recipe", "seed", "round"])[["units", "living", "mattering"]].sum()
        net = (layers["car"].fillna(0) * layers["living"]).groupby([layers[c] for c in counts.index.names]).sum()
        runs = counts.assign(car=net, gone=1 - counts["living"] / counts["units"]).reset_index()
        living = runs["living"].where(runs["living"] > 0)
        runs["sure"], runs["car"] = runs["mattering"] / living, runs["car"] / living
        dense, mine = runs[runs["role"] == "dense"], ticket_rows(runs, self.recipe)
        last = mine[mine["round"] == mine["round"].max()].mean(numeric_only=True)
        record = next(self.found.record(point, self.key) for point in self.found.points)
        images = f"measured on {record.info['images']:,} {record.info['split']} images"
        yield (
            f"With {self.last} of the {self.kept}, {percent(last['gone'])} of the units are pruned away. Of those that "
            f"live {percent(last['sure'])} matter for sure (dense: {span(dense['sure'])}); their mean CAR is "
            f"{percent(last['car'])} (dense: {span(dense['car'])}), {images}."
        )

    def _place(self) -> Iterator[str]:
        names, values, _ = self.means(self.layers, "layer", "harm")
        if len(names) > 1 and np.isfinite(values[:, [0, -1]]).all():
            before, after = values[:, 0].argmax(), values[:, -1].argmax()
            yield (
                f"Most hangs on {names[after]}: {percent(values[after, -1])} of all decisions that turn wrong without "
                f"a unit; in the dense networks on {names[before]} ({percent(values[before, 0])})."
            )

    def _harmed(self) -> Iterator[str]:
        names, values, _ = self.means(self.classes, "class", "car")
        if len(names) > 1 and (np.nanmax(values[:, [0, -1]], axis=0, initial=-1) > 0).all():
            before, after = (int(np.nanargmax(values[:, column])) for column in (0, -1))
            yield (
                f"The class that loses most without a unit is {names[after]} ({percent(values[after, -1])} of its "
                f"recall a unit); in the dense networks {names[before]} ({percent(values[before, 0])})."
            )
