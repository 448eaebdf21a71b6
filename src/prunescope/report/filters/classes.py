"""For every class the units that it needs most, over all layers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunescope.report.filters.folder import Filters
from prunescope.report.filters.marks import signed

_UNITS = 5


@dataclass(frozen=True)
class ClassRow:
    """One class: its images, the step in which its CARs move, and (place of the layer, layer, channel, class CAR)."""

    name: str
    images: str
    step: str
    units: tuple[tuple[int, str, int, str], ...]


def class_rows(found: Filters) -> list[ClassRow]:
    """Only units without which the class loses; of equal ones the first in the network."""
    counts = found.facts.get("class_images") or [0] * len(found.classes)
    return [
        ClassRow(name, f"{n:,}" if n else "–", signed(1 / n).lstrip("+") if n else "–", _most(found, column))
        for column, (name, n) in enumerate(zip(found.classes, counts, strict=True))
    ]


def _most(found: Filters, column: int) -> tuple[tuple[int, str, int, str], ...]:
    values = found.class_car[:, column]
    order = np.argsort(np.where(np.isnan(values), np.inf, -values), kind="stable")[:_UNITS]
    place = {layer: number for number, layer in enumerate(found.layers)}
    layers, channels = found.units["layer"], found.units["channel"]
    return tuple(
        (place[layers[row]], layers[row], int(channels[row]), signed(values[row])) for row in order if values[row] > 0
    )
