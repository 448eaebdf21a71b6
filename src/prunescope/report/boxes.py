"""Charts of how a number of units is spread, layer by layer: one box a layer and network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from prunescope.core.types import Array
from prunescope.report.charts import Figure, figure
from prunescope.report.places import number
from prunescope.report.style import plain
from prunescope.report.traces import Trace, shade

#: Ends of the whiskers, and of the box.
_SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)


def box_chart(
    groups: Mapping[str, Sequence[Array]], layers: Sequence[str], *, title: str, unit: str, chance: float | None = None
) -> Figure:
    """Boxes from the 25 to the 75 % quantile, whiskers from 5 to 95 %; layers without a value have none.

    Args:
        groups: {network, the dense ones first: one array of values for every layer}; what is NaN is left out.
        chance: a line across the chart.
    """
    found = {name: [_quantiles(values) for values in rows] for name, rows in groups.items()}
    places = len(groups) - 1
    traces = [
        _boxes(name, list(map(plain, layers)), rows, "#7f7f7f" if not i else shade(i / max(1, places)))
        for i, (name, rows) in enumerate(found.items())
    ]
    if chance is not None and layers:
        traces.append({
            "type": "scatter", "mode": "lines", "x": [plain(layers[0]), plain(layers[-1])], "y": [chance, chance],
            "name": "chance", "hoverinfo": "skip", "line": {"width": 1.5, "color": "#7f7f7f", "dash": "dot"},
        })  # fmt: skip
    cells = [
        [layer, name, *(number(value) for value in rows[i])]
        for i, layer in enumerate(layers)
        for name, rows in found.items()
    ]
    order = {"type": "category", "categoryorder": "array", "categoryarray": list(map(plain, layers))}
    layout = {"boxmode": "group", "xaxis": {**order, "tickangle": -40 if len(layers) > 6 else 0}}
    note = "Boxes: the middle half of a layer's units, with the median; whiskers: from 5 to 95 % of them."
    return figure(
        traces, layout, title=title, unit=unit, note=note, alt=f"{title}: {_told(layers, found)}.",
        columns=("layer", "network", "5 %", "25 %", "median", "75 %", "95 %"), cells=cells,
    )  # fmt: skip


def _quantiles(values: Array) -> list[float]:
    known = values[np.isfinite(values)]
    return np.quantile(known, _SHARES).tolist() if len(known) else [np.nan] * len(_SHARES)


def _boxes(name: str, layers: list[str], rows: list[list[float]], colour: str) -> Trace:
    known = [i for i, row in enumerate(rows) if np.isfinite(row).all()]  # Plotly warns of boxes without numbers
    low, first, middle, third, high = np.array([rows[i] for i in known]).reshape(-1, len(_SHARES)).T.tolist()
    return {
        "type": "box", "name": plain(name), "x": [layers[i] for i in known],
        "lowerfence": low, "q1": first, "median": middle, "q3": third, "upperfence": high,
        "marker": {"color": colour}, "line": {"color": colour, "width": 1.5},
        "hoverlabel": {"namelength": -1},
    }  # fmt: skip


def _told(layers: Sequence[str], found: Mapping[str, list[list[float]]]) -> str:
    """Each network's first and last median."""
    parts = [
        f"{name}: median {number(rows[0][2])} in {layers[0]}, {number(rows[-1][2])} in {layers[-1]}"
        for name, rows in found.items()
        if rows
    ]
    return "; ".join(parts)
