"""Tables whose cells are coloured by what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunescope.core.types import Array
from prunescope.report.places import percent


@dataclass(frozen=True)
class HeatCell:
    """Text, and how strongly it is coloured: 0 not at all, 1 fully; negative in the colour of loss."""

    text: str
    level: float


@dataclass(frozen=True)
class HeatTable:
    """One row a class, layer ..., one column a network or density."""

    title: str
    note: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


def shares(values: Array, levels: Array, names: Sequence[str]) -> tuple[tuple[str, tuple[HeatCell, ...]], ...]:
    """Rows of shares (R, C) with their levels (R, C), which are cut to [-1, 1]; NaN is "–", without colour."""
    strength = np.clip(np.nan_to_num(levels), -1, 1).round(2)
    return tuple(
        (name, tuple(HeatCell(percent(float(v)), float(s)) for v, s in zip(row, line, strict=True)))
        for name, row, line in zip(names, values, strength, strict=True)
    )
