"""Records of a probe that asks whether maps can be trusted, at every density of a recipe, and what is shown of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from prunescope.core.types import Array, Record
from prunescope.metrics.statistics import Interval, bootstrap_mean
from prunescope.report.charts import Figure
from prunescope.report.heat import HeatTable
from prunescope.report.places import dense_points, number, percent, spread_out, tickets, units
from prunescope.report.style import Look
from prunescope.report.traces import shade
from prunescope.study.plan import Point
from prunescope.study.results import Results

#: Densities drawn, at most, besides dense.
_LINES = 4


@dataclass(frozen=True)
class TrustView:
    """One probe and recipe; `figures` are charts by their place on the page."""

    title: str
    words: tuple[str, ...]
    table: HeatTable
    figures: dict[str, Figure] = field(default_factory=dict)


class Series:
    """Records of one probe: the dense networks', and those of a recipe's tickets by round."""

    def __init__(self, found: Results, key: str, recipe: str) -> None:
        self.key, self.recipe, self.kept = key, recipe, units(found, recipe)
        rounds: dict[int, list[Point]] = {}
        for point in tickets(found, recipe):
            rounds.setdefault(point.round, []).append(point)
        self.groups: dict[str, list[Record]] = {"dense": [found.record(point, key) for point in dense_points(found)]}
        self.groups |= {percent(ps[0].density): [found.record(point, key) for point in ps] for ps in rounds.values()}
        self.last = list(self.groups)[-1]
        first = next(record for records in self.groups.values() for record in records)
        told = f"{first.info['method']}, {recipe}"
        self.info, self.title = first.info, told if key == first.probe else f"{told} ({key})"

    def mean(self, group: str, metric: str) -> float:
        """Over the seeds that have a value."""
        values = [record.metrics[metric] for record in self.groups[group]]
        known = [value for value in values if np.isfinite(value)]
        return float(np.mean(known)) if known else float("nan")

    def over_images(self, group: str, of: Callable[[Record], Array]) -> Interval:
        """Mean, and a 95 % bootstrap interval over images, of a number per image, averaged over seeds before."""
        values = np.stack([of(record).astype(np.float64) for record in self.groups[group]])
        known = np.isfinite(values)
        mean = np.where(known, values, 0).sum(0) / np.where(known.any(0), known.sum(0), np.nan)
        return bootstrap_mean(mean, seed=0)

    def curve(self, group: str, array: str) -> Array:
        """Mean over the seeds of an array."""
        values = np.stack([record.arrays[array] for record in self.groups[group]])
        known = np.isfinite(values)
        total = np.where(known, values, 0).sum(0)
        return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)

    def drawn(self) -> Iterator[tuple[str, Look]]:
        """Dense, and some densities, darker as fewer weights are left."""
        some = spread_out([name for name in self.groups if name != "dense"], _LINES)
        if self.groups["dense"]:
            yield "dense", Look("#7f7f7f", "dash", "circle-open")
        for place, name in enumerate(some):
            yield name, Look(shade((place + 1) / len(some)), "solid", "circle")

    def columns(self) -> tuple[str, ...]:
        return tuple(name for name, records in self.groups.items() if records)

    def place(self, what: str) -> str:
        return f"trust/{self.key}/{self.recipe}/{what}"


def with_interval(found: Interval) -> str:
    """A mean with its interval."""
    return f"{number(found.value)} ({number(found.low)} to {number(found.high)})"


def level(value: float) -> float:
    """How strongly a cell is coloured, -1 to 1."""
    return float(np.clip(np.nan_to_num(value), -1, 1).round(2))
