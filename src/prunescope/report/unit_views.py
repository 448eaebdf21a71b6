"""Which units matter: CAR layer by layer and class by class, tickets beside the dense networks. Words first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prunescope.core.types import Array
from prunescope.metrics.families import FAMILIES
from prunescope.report.charts import sentence_case
from prunescope.report.glance import BEYOND, WITHIN
from prunescope.report.heat import HeatCell, HeatTable
from prunescope.report.measures import measures, within_range
from prunescope.report.measures import rows as rows_of
from prunescope.report.places import number, percent, recipes_done, ticket_rows, units
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


@dataclass(frozen=True)
class UnitView:
    """One recipe's tickets beside the dense networks; `drift` is the part of the verdicts that CAR has."""

    recipe: str
    words: tuple[str, ...]
    tables: tuple[HeatTable, ...]
    drift: Verdicts | None


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


class _View:
    def __init__(self, found: Results, key: str, recipe: str, layers: pd.DataFrame, classes: pd.DataFrame) -> None:
        self.found, self.key, self.recipe, self.layers, self.classes = found, key, recipe, layers, classes
        self.kept = units(found, recipe)
        asked = dict(zip(*(ticket_rows(layers, recipe)[name] for name in ("round", "density")), strict=True))
        self.rounds = {0: "dense", **{round_: percent(asked[round_]) for round_ in sorted(asked)}}
        self.last = self.rounds[max(self.rounds)]

    def made(self, judged: list[Verdicts]) -> UnitView:
        title = self.recipe if self.key == "car" else f"{self.recipe} ({self.key})"
        layers = self.layers.assign(living=self.layers["units"] - self.layers["dead"])
        layers["sure"] = (layers["mattering"] / layers["living"].where(layers["living"] > 0)).astype(float)
        layers["gone"] = layers["dead"] / layers["units"]
        how = f"Means over seeds; in brackets the range of the dense networks; columns: {self.kept} kept."
        tables = [
            self._heat(layers, "layer", "sure", f"Units that matter, {title}", f"Share of the living ones. {how}"),
            self._heat(layers, "layer", "car", f"Mean CAR of a layer's units, {title}", f"Of living units. {how}"),
            self._heat(layers, "layer", "harm", f"Where the harm lies, {title}",
                       f"Share of all decisions that turn wrong, over all units. {how}"),
            self._heat(layers, "layer", "gone", f"Units that are pruned away, {title}", f"Share of a layer's. {how}"),
            self._heat(self.classes, "class", "car", f"What a class loses without a unit, {title}",
                       f"Class CAR, mean over all living units. {how}"),
        ]  # fmt: skip
        tables = [table for table in tables if any(cell.level for _, cells in table.rows for cell in cells)]
        words = (*self._units(layers), *self._place(), *self._harmed(), *self._drifted())
        return UnitView(title, words, tuple(tables), self._lines(judged))

    def _means(self, table: pd.DataFrame, of: str, column: str) -> tuple[Array, list[str], Array]:
        """(means over seeds (rows, 1 + rounds), names of rows, lowest and highest of the dense networks (rows, 2))."""
        dense, mine = table[table["role"] == "dense"], ticket_rows(table, self.recipe)
        shown = pd.concat([dense, mine]).groupby([of, "round"], sort=False)[column].mean().unstack("round")
        names = list(dict.fromkeys(table[of]))
        ends = dense.groupby(of)[column].agg(["min", "max"]).reindex(names)
        return shown.reindex(index=names, columns=list(self.rounds)).to_numpy(float), names, ends.to_numpy(float)

    def _heat(self, table: pd.DataFrame, of: str, column: str, title: str, note: str) -> HeatTable:
        values, names, ends = self._means(table, of, column)
        top = np.nanmax(np.abs(values), initial=0) or 1.0
        order = list(range(len(names)))
        if len(order) > _CLASSES and of == "class":
            order = np.argsort(-np.nan_to_num(values[:, -1]), kind="stable")[:_CLASSES].tolist()
            note += f" Of {len(names)} classes the {_CLASSES} that lose most are shown."
        rows = []
        for i in order:
            texts = [percent(value) for value in values[i]]
            if np.ptp(ends[i]) > 0:
                texts[0] += f" ({percent(ends[i, 0])} to {percent(ends[i, 1])})"
            levels = np.clip(np.nan_to_num(values[i]) / top, -1, 1).round(2).tolist()
            rows.append((names[i], tuple(map(HeatCell, texts, levels))))
        return HeatTable(title, note, of, tuple(self.rounds.values()), tuple(rows))

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
            f"live {percent(last['sure'])} matter for sure (dense: {_range(dense['sure'])}); their mean CAR is "
            f"{percent(last['car'])} (dense: {_range(dense['car'])}), {images}."
        )

    def _place(self) -> Iterator[str]:
        values, names, _ = self._means(self.layers, "layer", "harm")
        if len(names) > 1 and np.isfinite(values[:, [0, -1]]).all():
            before, after = values[:, 0].argmax(), values[:, -1].argmax()
            yield (
                f"Most hangs on {names[after]}: {percent(values[after, -1])} of all decisions that turn wrong without "
                f"a unit; in the dense networks on {names[before]} ({percent(values[before, 0])})."
            )

    def _harmed(self) -> Iterator[str]:
        values, names, _ = self._means(self.classes, "class", "car")
        if len(names) > 1 and (np.nanmax(values[:, [0, -1]], axis=0, initial=-1) > 0).all():
            before, after = (int(np.nanargmax(values[:, column])) for column in (0, -1))
            yield (
                f"The class that loses most without a unit is {names[after]} ({percent(values[after, -1])} of its "
                f"recall a unit); in the dense networks {names[before]} ({percent(values[before, 0])})."
            )

    def _drifted(self) -> Iterator[str]:
        """Drift at the last rate, by verdict."""
        pooled, told = within_range(self.found), dict[str, list[str]]()
        for item in measures(self.found):
            chosen = ticket_rows(rows_of(pooled, item), self.recipe)
            if item.probe != self.key or item.subset != "all" or not len(chosen):
                continue
            row = chosen.sort_values("round").iloc[-1]
            alone = next(d for d in FAMILIES[item.family] if d.name == item.distance).unit_by_unit
            kind = "unit by unit, for which other seeds are no measure" if alone else str(row["verdict"])
            kind = kind if np.isfinite(row["value"]) else "with nothing to compare"
            told.setdefault(kind, []).append(f"{row['title']} ({row['unit']} {number(row['value'])})")
        words = {
            WITHIN: "within the range of other seeds", BEYOND: "beyond what other seeds explain",
            "undecided": "worse than other seeds, but not surely", "no floor": "without a noise floor",
        }  # fmt: skip
        parts = [f"{words.get(kind, kind)}: {', '.join(titles)}" for kind, titles in told.items()]
        if parts:
            yield f"Drift from the dense network at {self.last}. " + sentence_case("; ".join(parts)) + "."

    def _lines(self, judged: list[Verdicts]) -> Verdicts | None:
        for table in judged:
            if table.recipe == self.recipe:
                lines = tuple(line for line in table.lines if line.figure.startswith(f"drift/{self.key}/"))
                return Verdicts(table.recipe, table.units, table.densities, lines) if lines else None
        return None


def _range(values: pd.Series[float]) -> str:
    """`1 %`, or `1 % to 3 %`."""
    low, high = percent(float(values.min())), percent(float(values.max()))
    return low if low == high else f"{low} to {high}"
