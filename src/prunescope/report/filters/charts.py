"""Charts of a layer: all its units by CAR, and what they answer to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from prunescope.report.charts import Figure, figure
from prunescope.report.filters.folder import Filters
from prunescope.report.filters.marks import KINDS, kinds, signed
from prunescope.report.style import Look
from prunescope.report.traces import dots, whiskers

LOOKS = {
    "helps": Look("#0072B2", "solid", "circle"), "harms": Look("#D55E00", "solid", "x"),
    "unsure": Look("#8f9399", "solid", "circle"),
}  # fmt: skip


def layer_figures(found: Filters) -> dict[str, Figure]:
    """{`car/PLACE`, `plane/PLACE`: chart} of every layer; planes only where both indices are known."""
    made: dict[str, Figure] = {}
    for place, layer in enumerate(found.layers):
        units = found.of(layer)
        made[f"car/{place}"] = overview(units, layer)
        if found.look and (units["colour"].notna() & units["shape"].notna()).any():
            bounds = found.look["colour_selective_from"], found.look["shape_selective_from"]
            made[f"plane/{place}"] = plane(units, layer, bounds)
    return made


def overview(units: pd.DataFrame, layer: str) -> Figure:
    """CAR of all units, from the least important to the most, with 95 % intervals."""
    ordered = units.sort_values("place").assign(rank=np.arange(1, len(units) + 1))
    traces = []
    for kind, part in _by_kind(ordered):
        trace = dots(part["rank"], part["car"], _hover(part), KINDS[kind], LOOKS[kind], alone=True)
        trace["error_y"] = {**whiskers(part["car"], (part["low"], part["high"]), width=0), "color": LOOKS[kind].colour}
        traces.append(_sized(trace, len(units)))
    layout = {"xaxis": {"title": {"text": "units, the least important first"}, "zeroline": False}}
    worst = ordered.iloc[-1]
    return figure(
        traces, layout, title="CAR of every unit", unit="accuracy lost without the unit",
        note="Bars are 95 % intervals over images, each for itself.",
        alt=f"CAR of {len(units)} units of {layer}; the largest is {signed(worst['car'])}, of channel "
        f"{worst['channel']}. The table below has the numbers.",
    )  # fmt: skip


def plane(units: pd.DataFrame, layer: str, bounds: tuple[float, float]) -> Figure:
    """Colour index against shape index; rules at the bounds of selective."""
    known = units[units["colour"].notna() & units["shape"].notna()]
    traces = [
        _sized(dots(part["colour"], part["shape"], _hover(part), KINDS[kind], LOOKS[kind], alone=True), len(known))
        for kind, part in _by_kind(known)
    ]
    for trace in traces:
        trace["hovertemplate"] = "%{text}<br>colour %{x:.2f}, shape %{y:.2f}<extra></extra>"
    axis = {"range": [-0.03, 1.03], "zeroline": False}
    rule = {"type": "line", "line": {"color": "#8f9399", "width": 1.5, "dash": "dot"}}
    layout = {
        "xaxis": {**axis, "title": {"text": "colour index"}}, "yaxis": {**axis, "title": {"text": "shape index"}},
        "shapes": [
            {**rule, "x0": bounds[0], "x1": bounds[0], "y0": -0.03, "y1": 1.03},
            {**rule, "x0": -0.03, "x1": 1.03, "y0": bounds[1], "y1": bounds[1]},
        ],
    }  # fmt: skip
    return figure(
        traces, layout, title="Colour or shape?",
        note="What is lost of the answer when the pixels seen are made grey, or put in random order.",
        alt=f"Colour index against shape index of {len(known)} units of {layer}. The table below has the numbers.",
    )  # fmt: skip


def _by_kind(units: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """What is sure is drawn last, above the rest."""
    found = kinds(units)
    return [(kind, units[found == kind]) for kind in reversed(KINDS) if (found == kind).any()]


def _sized(trace: dict[str, Any], units: int) -> dict[str, Any]:
    """Smaller marks where there are many."""
    size = 8 if units <= 64 else 6 if units <= 256 else 4
    return {**trace, "marker": {**trace["marker"], "size": size}}


def _hover(units: pd.DataFrame) -> list[str]:
    return [f"channel {channel}" for channel in units["channel"]]
