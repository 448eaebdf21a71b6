"""The study at a glance: for each recipe, what is judged (accuracy, decisions, reasons) at every density."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from prunescope.metrics.statistics import change_point, pooled_spread
from prunescope.report.measures import headlines, rows, within_range
from prunescope.report.places import number, percent, performance_key, ticket_rows
from prunescope.study.floor import Floor, noise_floor, over_seeds, verdict
from prunescope.study.results import Results

Kind = Literal["accuracy", "decisions", "reasons"]
#: Columns of the pooled table that make a cell.
JUDGED = ["density", "value", "low", "high", "verdict"]
BEYOND, WITHIN = "beyond the floor", "within the floor"
#: {verdict: (its mark, its CSS class)}.
_MARKS = {WITHIN: ("✓", "within"), BEYOND: ("✗", "beyond"), "undecided": ("?", "undecided")}
#: What stands for a number that there is none of.
NOTHING = number(math.nan)
#: Largest class over smallest test class above which balanced accuracy is judged too.
_UNEVEN = 2


@dataclass(frozen=True)
class Cell:
    """A judgement at one density: mean over seeds, what it says when asked for more, and the verdict."""

    density: float
    text: str
    detail: str
    verdict: str

    @property
    def known(self) -> bool:
        """Whether there is a value: where every map is blank there is none."""
        return self.text != NOTHING


@dataclass(frozen=True)
class Lens:
    """One thing that is judged.

    Attributes:
        subject: in words: `heat maps`.   how: it is measured, in words.
        figure: which figure of drift shows it; empty for accuracy.
        floor: in words; empty when there is none.
        cells: by falling density.
    """

    kind: Kind
    subject: str
    how: str
    figure: str
    floor: str
    cells: tuple[Cell, ...]

    @property
    def judged(self) -> bool:
        """Whether there is a floor."""
        return bool(self.floor)

    @property
    def left(self) -> float | None:
        """The density from which on this and every lower one with a value lie beyond the floor."""
        known = [cell for cell in self.cells if cell.known]
        return change_point([c.density for c in known], [c.verdict == BEYOND for c in known])

    @property
    def held(self) -> bool:
        """Whether every density lies within the floor."""
        return self.judged and all(cell.verdict == WITHIN for cell in self.cells)


def mark(verdict: str) -> tuple[str, str]:
    """A verdict's mark and CSS class; the mark is empty where nothing was judged."""
    return _MARKS.get(verdict, ("", "none"))


def lenses(found: Results, recipe: str) -> list[Lens]:
    """Accuracy first, then the headline measures; of a recipe whose tickets are done."""
    return [*_accuracy(found, recipe), *_drifts(found, recipe)]


def _accuracy(found: Results, recipe: str) -> list[Lens]:
    key = performance_key(found.study)
    counts = [n for n in found.data["counts"]["test"] if n]
    uneven = len(counts) > 1 and max(counts) > _UNEVEN * min(counts)
    names = {"top1": "accuracy", **({"balanced_accuracy": "balanced accuracy"} if uneven else {})}
    return [
        _metric(found.runs, recipe, f"{key}.{metric}", subject)
        for metric, subject in names.items()
        if f"{key}.{metric}" in found.runs
    ]


def _metric(runs: pd.DataFrame, recipe: str, column: str, subject: str) -> Lens:
    """The range of the dense networks is for accuracy what the noise floor is for drift."""
    floor = noise_floor(runs[runs["role"] == "dense"][column].to_numpy(), higher_is_better=True)
    groups = ticket_rows(runs, recipe).groupby("round")
    spread = pooled_spread([group[column].to_numpy() for _, group in groups])
    cells = []
    for _, group in groups:
        estimate = over_seeds(group[column].to_numpy(), floor=floor, spread=spread)
        low, high = np.clip([estimate.low, estimate.high], 0, 1)
        told = verdict(estimate, higher_is_better=True)
        cells.append(
            Cell(float(group["target"].iloc[0]), percent(estimate.value), f"{percent(low)} to {percent(high)}", told)
        )
    words = f"{percent(floor[0])} to {percent(floor[1])}" if floor else ""
    return Lens("accuracy", subject, "share of test images", "", words, _falling(cells))


def _drifts(found: Results, recipe: str) -> list[Lens]:
    pooled, shown = within_range(found), []
    for item in headlines(found):
        chosen = ticket_rows(rows(pooled, item), recipe)
        if len(chosen):
            cells = [
                Cell(density, number(value), f"{number(low)} to {number(high)}", told)
                for density, value, low, high, told in chosen[JUDGED].itertuples(index=False, name=None)
            ]
            kind: Kind = "decisions" if item.family == "labels" else "reasons"
            first = chosen.iloc[0]
            how = str(first["title"]) + (", both right" if item.subset == "both_right" else "")
            floor = floor_words((first["floor_low"], first["floor_high"]))
            shown.append(Lens(kind, item.subject, how, f"drift/{item.figure}", floor, _falling(cells)))
    return shown


def floor_words(floor: Floor) -> str:
    """`0.79 to 0.83`; empty when there is none."""
    return f"{number(floor[0])} to {number(floor[1])}" if np.isfinite(floor[0]) else ""


def _falling(cells: list[Cell]) -> tuple[Cell, ...]:
    return tuple(sorted(cells, key=lambda cell: -cell.density))
