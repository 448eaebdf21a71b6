"""What the page's script makes its tables from: numbers and pictures of a layer, read when it is opened."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.types import Array
from prunescope.report.filters.folder import Filters
from prunescope.report.filters.marks import kinds

#: Columns of a unit that the script shows, by their names in the tables; numbers have so many significant digits.
SHOWN = (
    "channel", "car", "low", "high", "p_holm", "mean_drop", "place", "live", "colour", "shape", "colour_selective",
    "shape_selective", "class_selectivity", "class_selectivity_means", "top_images", "redundancy", "partner", "chroma",
    "worst_low", "worst_high", "worst_p",
)  # fmt: skip
_DIGITS = 5
#: Classes named as most harmed.
_HARMED = 2


def layer_data(found: Filters, layer: str) -> dict[str, Any]:
    """One list per column, an entry per unit: `SHOWN`, `kind`, `top_class`, and (class, class CAR) pairs.

    `harmed`: the classes that lose most without the unit, the worst first, if they lose; `worst_low` to `worst_p` are
    of the first. `spared`: the one that loses least, or gains.
    """
    units = found.of(layer)
    values = found.class_car[units.index]
    falling = -values
    for row, number in enumerate(units.index):
        if (worst := found.worst_class(number)) is not None:
            falling[row, worst] = -np.inf  # of classes that lose as much it is the one that `worst_low` is of
    return {
        "name": layer, **{name: compact(units[name]) for name in SHOWN}, "kind": kinds(units).tolist(),
        "top_class": [None if pd.isna(name) else name for name in units["top_class"]],
        "harmed": [[pair for pair in pairs if (pair[1] or 0) > 0] for pairs in ranked(falling, values, _HARMED)],
        "spared": [pairs[0] for pairs in ranked(values, values, 1)],
    }  # fmt: skip


def ranked(keys: Array, values: Array, count: int) -> list[list[list[float | int | None]]]:
    """For each row the `count` classes with the smallest keys, as (class, value); classes without images come last."""
    order = np.argsort(np.where(np.isnan(keys), np.inf, keys), axis=1, kind="stable")[:, :count]
    return [[[int(c), *compact([row[c]])] for c in best] for row, best in zip(values, order, strict=True)]


def layer_pictures(found: Filters, layer: str) -> dict[str, list[str]]:
    """Base64 of the units' patches, kernels and made pictures, in the order of `layer_data`; "" where there is none."""
    own = [found.pictures_of(layer, channel) for channel in found.of(layer)["channel"]]
    return {
        name: [base64.b64encode(pictures[i]).decode("ascii") for pictures in own]
        for i, name in enumerate(("patches", "kernels", "maximised"))
    }


def compact(values: Iterable[Any]) -> list[float | int | None]:
    """Numbers with few digits; whole ones without a point; None where there is none."""
    return [_short(float(value)) if pd.notna(value) else None for value in values]


def _short(value: float) -> float | int:
    value = float(f"{value:.{_DIGITS}g}")
    return int(value) if value.is_integer() and abs(value) < 1e9 else value
