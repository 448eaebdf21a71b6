"""Which concepts classes are sensitive to: TCAV and concept regions, dense networks beside the last tickets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prunescope.core.types import Array, Record
from prunescope.report.heat import HeatCell, HeatTable, shares
from prunescope.report.measures import measures, within_range
from prunescope.report.measures import rows as rows_of
from prunescope.report.places import dense_of, number, percent, recipes_done, ticket_rows, tickets, units
from prunescope.report.tcav_rows import SCORES, score_probes
from prunescope.study.results import Results

#: Classes and concepts of a table, and concepts listed in a sentence: at most.
_CLASSES, _CONCEPTS, _LISTED = 30, 16, 8

TCAV_LEAD = (
    "TCAV: the share of a class's test images whose logit rises along a concept's vector. ▲ (for the class) and ▼ "
    "(against it): the vectors of every network's repeats stand out from those of random images (Mann-Whitney, Holm "
    "over the classes and concepts of a layer), whatever the share, which random vectors reach too. Concept regions: "
    "the share of the images that lie where the concept is; it tells what is there, not what the decision hangs on."
)


@dataclass(frozen=True)
class TcavView:
    """One probe's dense networks beside one recipe's last tickets."""

    title: str
    words: tuple[str, ...]
    tables: tuple[HeatTable, ...]


def tcav_views(found: Results) -> list[TcavView]:
    """One per probe of scores and recipe of which tickets are done; none without such a probe."""
    views = []
    for key in score_probes(found):
        for recipe in recipes_done(found):
            last = max(point.round for point in tickets(found, recipe))
            points = [point for point in tickets(found, recipe) if point.round == last]
            pairs = [(dense_of(found, point.seed), point) for point in points]
            records = [(found.record(a, key), found.record(b, key)) for a, b in pairs if a is not None]
            if records:
                views.append(_View(found, key, recipe, records, percent(points[0].density)).made())
    return views


class _View:
    def __init__(
        self, found: Results, key: str, recipe: str, records: list[tuple[Record, Record]], density: str
    ) -> None:
        self.found, self.key, self.recipe, self.density = found, key, recipe, density
        self.kinds: tuple[list[Record], ...] = tuple(map(list, zip(*records, strict=True)))
        self.first = records[0][0]
        self.layers, self.classes, self.concepts = (
            [str(name) for name in self.first.info[kind]] for kind in ("layers", "classes", "concept_names")
        )
        self.scores = [_means([record.arrays[SCORES[record.probe]] for record in kind]) for kind in self.kinds]
        self.sure = [_agreed(kind) for kind in self.kinds]

    def made(self) -> TcavView:
        name = {"tcav": "TCAV", "concept_regions": "Concept regions"}[self.first.probe]
        name = name if self.key == self.first.probe else f"{name} ({self.key})"
        shown = [k for k, layer in enumerate(self.layers) if np.isfinite(self.scores[0][:, k]).any()]
        tables = (*(self._layer(k, f"{name} at {self.layers[k]}, {self.recipe}") for k in shown), self._quality(name))
        told = self._found if self.first.probe == "tcav" else self._regions
        words = (*told(), *self._drifted(), *self._refused(), *self._unread(), *self._warned())
        return TcavView(f"{name}, {self.recipe}", words, tables)

    def _layer(self, layer: int, title: str) -> HeatTable:
        """Two rows a class: the dense networks, and the last tickets."""
        scores, sure = ([table[:, layer] for table in tables] for tables in (self.scores, self.sure))
        known = np.isfinite(np.concatenate(scores)).any(axis=0)
        weight = (sum(np.abs(s) for s in sure) + np.nan_to_num(np.abs(scores[0] - 0.5))).sum(axis=0)
        order = np.sort(np.argsort(-np.where(known, weight, -1), kind="stable")[: min(_CONCEPTS, int(known.sum()))])
        rows = []
        for k, name in enumerate(self.classes[:_CLASSES]):
            for column, kind in enumerate(("dense", self.density)):
                cells = tuple(_cell(scores[column][k, i], sure[column][k, i], self.first.probe) for i in order)
                rows.append((f"{name}, {kind}", cells))
        columns = tuple(self.concepts[i] for i in order)
        note = f"Means over seeds; {self.density} of the {units(self.found, self.recipe)} kept; – cannot be said."
        if known.sum() > _CONCEPTS:
            note += f" {_CONCEPTS} of {known.sum()} concepts, those that stand out most; the tables hold all."
        if len(self.classes) > _CLASSES:
            note += f" The first {_CLASSES} of {len(self.classes)} classes."
        return HeatTable(title, note, "class", columns, tuple(rows))

    def _quality(self, name: str) -> HeatTable:
        values = [_means([record.arrays["concept.auroc"] for record in kind]) for kind in self.kinds]
        columns = [f"{layer}, {kind}" for layer in self.layers for kind in ("dense", self.density)]
        table = np.stack(values, axis=2).reshape(len(self.concepts), -1)
        title = f"How well concepts can be read, {name}, {self.recipe}"
        note = "AUROC on held-out images, mean over seeds; 50 % is chance."
        return HeatTable(title, note, "concept", tuple(columns), shares(table, 2 * (table - 0.5), self.concepts))

    def _found(self) -> Iterator[str]:
        """How much is found, how much of it is shared, and what is strongest."""
        kept = units(self.found, self.recipe)
        counts = [np.mean([np.nansum(np.abs(r.arrays["class.found"])) for r in kind]) for kind in self.kinds]
        tested = [np.mean([np.isfinite(r.arrays["class.found"]).sum() for r in kind]) for kind in self.kinds]
        before, after = (
            f"{c:.0f} of {t:.0f} tested ({percent(c / t) if t else '–'})" for c, t in zip(counts, tested, strict=True)
        )
        yield (
            f"With {self.density} of the {kept}, {after} combinations of class, concept and layer stand out from "
            f"random vectors for sure; in the dense networks {before}."
        )
        for kind, sure in (("dense networks", self.sure[0]), (f"tickets at {self.density}", self.sure[1])):
            strength = _means([r.arrays["class.strength"] for r in self.kinds[kind != "dense networks"]])
            size = np.where(sure != 0, np.abs(np.nan_to_num(strength)), 0)
            if size.any():
                k, layer, i = np.unravel_index(int(size.argmax()), size.shape)
                scores = self.scores[kind != "dense networks"]
                side = "for" if sure[k, layer, i] > 0 else "against"
                yield (
                    f"The strongest that is sure, in the {kind}: {self.concepts[i]} speaks {side} {self.classes[k]} "
                    f"(at {self.layers[layer]}: TCAV {percent(float(scores[k, layer, i]))}, "
                    f"mean cosine {number(float(strength[k, layer, i]))})."
                )

    def _regions(self) -> Iterator[str]:
        told = []
        for kind in self.kinds:
            means = [np.mean([r.metrics[name] for r in kind]) for name in ("accuracy", "linear_accuracy")]
            told.append(f"{percent(float(means[0]))} (linear vectors: {percent(float(means[1]))})")
        yield (
            f"Regions tell held-out images with a concept from those without, balanced over both, in {told[0]} of the "
            f"cases in the dense networks, and in {told[1]} at {self.density}."
        )

    def _drifted(self) -> Iterator[str]:
        """Drift at the last density, with its verdict."""
        pooled, told = within_range(self.found), []
        for item in measures(self.found):
            chosen = ticket_rows(rows_of(pooled, item), self.recipe)
            if item.probe == self.key and len(chosen):
                row = chosen.sort_values("round").iloc[-1]
                interval = f", {number(row['low'])} to {number(row['high'])}" if np.isfinite(row["low"]) else ""
                told.append(f"{row['title']} {number(row['value'])} ({row['unit']}{interval}; {row['verdict']})")
        if told:
            yield f"Drift from the dense network at {self.density}: {'; '.join(told)}."

    def _refused(self) -> Iterator[str]:
        for layer, why in dict(self.first.info["refused"]).items():
            yield f"At {layer} TCAV says nothing: {why}."

    def _unread(self) -> Iterator[str]:
        for kind, records in (("the dense networks", self.kinds[0]), (f"the tickets at {self.density}", self.kinds[1])):
            read = np.concatenate([r.arrays["concept.readable"] for r in records], axis=1)
            names = [name for name, row in zip(self.concepts, read, strict=True) if not row.any()]
            if names:
                more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
                yield f"Cannot be read from any layer of {kind}, and left out: {', '.join(names[:_LISTED])}{more}."

    def _warned(self) -> Iterator[str]:
        if self.first.info.get("warning"):
            yield str(self.first.info["warning"])


def _means(tables: list[Array]) -> Array:
    """Over networks; NaN where none has a value."""
    stack = np.stack(tables)
    known = np.isfinite(stack)
    count = known.sum(axis=0)
    found: Array = np.where(count > 0, np.where(known, stack, 0).sum(axis=0) / np.maximum(count, 1), np.nan)
    return found


def _agreed(records: list[Record]) -> Array:
    """1 or -1 where every network says so, else 0."""
    shape = records[0].arrays[SCORES[records[0].probe]].shape
    stack = np.stack([np.nan_to_num(r.arrays.get("class.found", np.zeros(shape))) for r in records])
    return np.where((stack == stack[:1]).all(axis=0), stack[0], 0.0)


def _cell(score: float, sure: float, probe: str) -> HeatCell:
    mark = {1.0: " ▲", -1.0: " ▼"}.get(float(sure), "")
    coloured = np.isfinite(score) and (probe != "tcav" or bool(mark))
    return HeatCell(percent(float(score)) + mark, round(float(2 * (score - 0.5)), 2) if coloured else 0.0)
