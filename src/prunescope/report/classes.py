"""Class by class: recall, and decisions that change."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import numpy as np

from prunescope.core.types import Array, Record
from prunescope.report.heat import HeatTable, shares
from prunescope.report.places import dense_of, dense_points, percent, predictions, recipes_done, tickets
from prunescope.study import hits
from prunescope.study.plan import Point
from prunescope.study.results import Results

#: Classes shown, at most: those that lose most.
_CLASSES = 40
#: Changed decisions listed, at most.
_PAIRS = 12
#: Change of recall that has the full colour.
_FULL = 0.25


@dataclass(frozen=True)
class Pair:
    """From which class to which, how often per hundred test images: by the tickets, and between dense networks."""

    before: str
    after: str
    tickets: str
    seeds: str


@dataclass(frozen=True)
class Classes:
    """The classes under one recipe."""

    recipe: str
    recall: HeatTable
    flipped: HeatTable
    density: str
    pairs: tuple[Pair, ...]


def by_class(found: Results) -> list[Classes]:
    """One view per recipe of which tickets and their dense networks are done."""
    return [_classes(found, recipe) for recipe in recipes_done(found) if dense_points(found)]


def _classes(found: Results, recipe: str) -> Classes:
    names = [str(name) for name in found.data["classes"]]
    rounds: dict[int, list[Point]] = {}
    for point in tickets(found, recipe):
        rounds.setdefault(point.round, []).append(point)
    dense = [predictions(found, point) for point in dense_points(found)]
    records = {
        r: [(predictions(found, p), predictions(found, q)) for p in points if (q := dense_of(found, p.seed))]
        for r, points in rounds.items()
    }
    labels = tuple(percent(points[0].density) for points in rounds.values())
    recall = np.stack([_recall(dense), *(_recall([own for own, _ in pairs]) for pairs in records.values())], axis=1)
    change = recall - recall[:, :1]
    flipped = np.stack([_flipped(pairs, len(names)) for pairs in records.values()], axis=1)
    seeds = _flipped(list(permutations(dense, 2)), len(names))[:, None]
    order = _worst(change[:, -1])
    note = "" if len(order) == len(names) else f" Of {len(names)} classes the {len(order)} that lose most are shown."
    chosen = [names[i] for i in order]
    return Classes(
        recipe,
        HeatTable(
            f"Recall of every class, {recipe}", f"Mean over seeds. Colour: change against the dense networks.{note}",
            "class", ("dense", *labels), shares(recall[order], (change / _FULL)[order], chosen),
        ),
        HeatTable(
            f"Changed decisions by true class, {recipe}",
            f"Share of a class's images that the ticket decides otherwise than its dense network; beside it, two "
            f"dense networks of different seeds.{note}",
            "class", (*labels, "other seeds"),
            shares(np.hstack([flipped, seeds])[order], -np.hstack([flipped, seeds])[order] / 0.5, chosen),
        ),
        labels[-1], _pairs(list(records.values())[-1], dense, names),
    )  # fmt: skip


def _recall(records: list[Record]) -> Array:
    """Mean over networks; NaN for classes without images."""
    found: Array = np.mean([record.arrays["class.recall"] for record in records], axis=0)
    return found


def _flipped(pairs: list[tuple[Record, Record]], classes: int) -> Array:
    """Share of every class's images that the two networks of a pair decide differently, mean over pairs."""
    if not pairs:
        return np.full(classes, np.nan)
    return np.mean([_flipped_once(a, b, classes) for a, b in pairs], axis=0)


def _flipped_once(a: Record, b: Record, classes: int) -> Array:
    labels = a.arrays["image.label"]
    other = a.arrays["image.predicted"] != b.arrays["image.predicted"]
    counts = np.bincount(labels, minlength=classes)
    flipped = np.bincount(labels, weights=other, minlength=classes)
    return np.where(counts > 0, flipped / np.maximum(counts, 1), np.nan)


def _worst(change: Array) -> list[int]:
    """All classes in their order, or of many those that lose most."""
    if len(change) <= _CLASSES:
        return list(range(len(change)))
    return [int(i) for i in np.argsort(np.nan_to_num(change), kind="stable")[:_CLASSES]]


def _pairs(pairs: list[tuple[Record, Record]], dense: list[Record], names: list[str]) -> tuple[Pair, ...]:
    if not pairs:
        return ()
    tickets_ = np.mean([_moves(reference, own) for own, reference in pairs], axis=0)
    both = list(permutations(dense, 2))
    seeds = np.mean([_moves(a, b) for a, b in both], axis=0) if both else np.full_like(tickets_, np.nan)
    order = np.argsort(-tickets_, axis=None, kind="stable")[:_PAIRS]
    places = [divmod(int(i), len(names)) for i in order if tickets_.flat[i] > 0]
    return tuple(Pair(names[a], names[b], percent(tickets_[a, b]), percent(seeds[a, b])) for a, b in places)


def _moves(before: Record, after: Record) -> Array:
    """Share of the test images that go from one class (row) to another (column)."""
    counts = hits.flips(before, after).astype(np.float64)
    total = counts.sum()
    np.fill_diagonal(counts, 0)
    return counts / max(total, 1)
