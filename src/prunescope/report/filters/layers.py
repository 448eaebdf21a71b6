"""A card per layer: all its CARs as a small drawing, base rates, and the units at both ends. Needs no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prunescope.core.types import Array
from prunescope.report.filters.folder import Filters
from prunescope.report.filters.marks import KINDS, kinds, signed
from prunescope.report.pictures import file_uri
from prunescope.report.places import percent, spread_out

#: Units shown at each end of a layer, and of the whole network; drawn of a layer at most.
_ENDS, _STARS, _DRAWN = 3, 8, 256
_WIDTH, _HEIGHT = 256, 48


@dataclass(frozen=True)
class UnitRow:
    """One unit in words; its pictures are data URIs, or empty."""

    channel: int
    car: str
    interval: str
    kind: str
    harmed: str
    patches: str
    kernel: str
    maximised: str


@dataclass(frozen=True)
class Card:
    """One layer.

    Attributes:
        bars: {kind: an SVG path}, CARs in increasing order, on a scale of the layer's own from `low` to `high`.
        zero: where CAR 0 lies on the drawing.
        facts: (name, value) pairs, base rates among them.
        ends: {which end: its units, the outermost first}.
    """

    name: str
    place: int
    units: int
    frame: int
    bars: dict[str, str]
    zero: float
    low: str
    high: str
    told: str
    facts: tuple[tuple[str, str], ...]
    ends: dict[str, tuple[UnitRow, ...]]


def cards(found: Filters) -> list[Card]:
    """One per layer, in the network's order."""
    return [_card(found, layer, place) for place, layer in enumerate(found.layers)]


def stars(found: Filters) -> list[tuple[UnitRow, int, str]]:
    """The most important units of the network, each with the place and the name of its layer."""
    best = found.units.sort_values("place")[::-1][:_STARS]
    best = best[best["car"] > 0]
    return [(row, found.layers.index(name), name) for row, name in zip(_rows(found, best), best["layer"], strict=True)]


def _card(found: Filters, layer: str, place: int) -> Card:
    units = found.of(layer).sort_values("place")
    bars, zero = drawing(units["car"].to_numpy(), kinds(units))
    ends = min(_ENDS, len(units) // 2) or 1
    frame = units["frame"].iloc[0]
    low, high = signed(min(0.0, units["car"].min())), signed(max(0.0, units["car"].max()))
    return Card(
        layer, place, len(units), int(frame) if np.isfinite(frame) else 0, bars, zero, low, high,
        f"CAR of the {len(units)} units of {layer}, from {signed(units['car'].min())} to {signed(units['car'].max())}",
        tuple(base_rates(units)),
        {"most important": _rows(found, units[::-1][:ends]), "least important": _rows(found, units[:ends])},
    )  # fmt: skip


def drawing(values: Array, kind: Array) -> tuple[dict[str, str], float]:
    """Bars from zero to each value (increasing; evenly chosen where there are many), as a path per kind."""
    low, high = min(0.0, values.min()), max(0.0, values.max())
    scale = (_HEIGHT - 4) / (high - low or 1)
    zero = 2 + (high * scale if high > low else _HEIGHT - 4)
    chosen = spread_out(range(len(values)), _DRAWN)
    step = _WIDTH / len(chosen)
    bars: dict[str, str] = dict.fromkeys(KINDS, "")
    for number, i in enumerate(chosen):
        top = zero - values[i] * scale
        top = zero - 0.5 if abs(top - zero) < 0.5 else top
        bars[kind[i]] += f"M{number * step:.1f} {zero:.1f}V{top:.1f}h{max(step * 0.8, 0.4):.1f}V{zero:.1f}z"
    return {key: path for key, path in bars.items() if path}, round(zero, 1)


def base_rates(units: pd.DataFrame) -> Sequence[tuple[str, str]]:
    """What is expected of units of the layer that are picked blindly."""
    kind, n = kinds(units), len(units)
    facts = [("matter for sure", _share(int((kind == "helps").sum()), n)), ("CAR below 0", _below(units, kind))]
    for name in ("colour", "shape"):
        known = units[f"{name}_selective"].dropna()
        if len(known):
            facts.append((f"{name}-selective", _share(int(known.sum()), len(known))))
    if units["redundancy"].notna().any():
        groups = units.loc[units["cluster"] >= 0, "cluster"].nunique()
        facts.append(("median redundancy", f"{units['redundancy'].median():.2f}"))
        facts.append(("groups that act alike", f"{groups} of {n} units"))
    if (units["live"] == 0).any():
        facts.append(("dead", _share(int((units["live"] == 0).sum()), n)))
    return facts


def _below(units: pd.DataFrame, kind: Array) -> str:
    sure = int((kind == "harms").sum())
    return _share(int((units["car"] < 0).sum()), len(units)) + (f", {sure} for sure" if sure else "")


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({percent(part / whole)})"


def _rows(found: Filters, units: pd.DataFrame) -> tuple[UnitRow, ...]:
    columns = (units[name] for name in ("layer", "channel", "car", "low", "high"))
    values = zip(units.index, *columns, kinds(units), strict=True)
    return tuple(
        UnitRow(
            channel, signed(car), f"{signed(low)} to {signed(high)}", kind, harmed_in_words(found, row),
            *pictures_of(found, layer, channel),
        )
        for row, layer, channel, car, low, high, kind in values
    )  # fmt: skip


def harmed_in_words(found: Filters, row: int) -> str:
    """The class that loses most without the unit; "–" where none loses."""
    worst = found.worst_class(row)
    return "–" if worst is None else f"{found.classes[worst]} {signed(found.class_car[row, worst])}"


def pictures_of(found: Filters, layer: str, channel: int) -> tuple[str, str, str]:
    """Patches, kernel and made picture of a unit as data URIs."""
    patches, kernel, made = found.pictures_of(layer, channel)
    return file_uri(patches, "WEBP"), file_uri(kernel, "PNG"), file_uri(made, "WEBP")
