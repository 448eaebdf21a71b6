"""How large the weights are that are left: a curve for every round, and the dense network's beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from prunescope.core.types import Array
from prunescope.models.checkpoint import Checkpoint
from prunescope.report.charts import Figure, figure
from prunescope.report.places import dense_of, percent, recipes_cut, spread_out, tickets
from prunescope.report.style import Look
from prunescope.report.traces import line, shade
from prunescope.study.plan import Point
from prunescope.study.results import Results

#: Bins per decade of |w|, decades counted, and bins shown at most: the page stays small, however large the network.
_PER_DECADE, _DECADES, _SHOWN = 15, (-12, 4), 60
#: Weights left of the first bin shown, of any curve: at most this share.
_TAIL = 0.005
#: Rounds on one chart, and layers with a chart of their own (over all recipes), at most.
_ROUNDS, _LAYERS = 6, 72
ALL = "all layers"
_BINS = (_DECADES[1] - _DECADES[0]) * _PER_DECADE


def sizes(values: Array) -> Array:
    """How many of the values have their |value| in each bin, (240,): 15 a decade from 1e-12 to 1e4. What lies beyond
    counts in the first or last bin; what is not finite does not count."""
    size = np.abs(values[np.isfinite(values)]).astype(np.float64)
    place = np.floor((np.log10(np.maximum(size, 10.0 ** _DECADES[0])) - _DECADES[0]) * _PER_DECADE)
    return np.bincount(place.clip(0, _BINS - 1).astype(np.int64), minlength=_BINS)


def magnitudes(found: Results) -> dict[str, dict[str, Figure]]:
    """{recipe: {layer, or `ALL` first: figure}}, of the recipe's first ticket seed; only where there are weights."""
    recipes = recipes_cut(found)
    made = {recipe: _figures(found, recipe, max(2, _LAYERS // len(recipes))) for recipe in recipes}
    return {recipe: charts for recipe, charts in made.items() if charts}


def _figures(found: Results, recipe: str, limit: int) -> dict[str, Figure]:
    seed = min(point.seed for point in tickets(found, recipe))
    shown = spread_out(tickets(found, recipe, seed), _ROUNDS)
    counted = [_counts(found, point) for point in shown]
    layers, names = list(counted[0]), [percent(point.density) for point in shown]
    if dense := dense_of(found, seed):
        counted, names = [_counts(found, dense, layers), *counted], ["dense", *names]
    where = f"{recipe}, seed {seed}"
    made = {ALL: _figure(names, [np.sum(list(counts.values()), axis=0) for counts in counted], ALL, where)}
    for layer in spread_out(layers, limit):
        name = layer.removesuffix(".weight")
        made[name] = _figure(names, [counts[layer] for counts in counted], name, where)
    return {layer: chart for layer, chart in made.items() if chart["data"]}


def _counts(found: Results, point: Point, layers: Sequence[str] = ()) -> dict[str, Array]:
    """{layer: bins} of the kept weights of the pruned layers; of a dense network, of all weights of these layers."""
    checkpoint = Checkpoint.load(found.store.path(point.checkpoint))
    if checkpoint.mask is None:
        return {layer: sizes(checkpoint.weights[layer].float().numpy()) for layer in layers}
    return {layer: sizes(checkpoint.weights[layer][kept].float().numpy()) for layer, kept in checkpoint.mask.items()}


def _figure(names: Sequence[str], counted: Sequence[Array], layer: str, where: str) -> Figure:
    """Networks without a weight in the layer have no curve."""
    curves = {place: counts / counts.sum() for place, counts in enumerate(counted) if counts.any()}
    first, last = _range(list(curves.values()))
    centres = 10.0 ** (_DECADES[0] + (np.arange(first, last) + 0.5) / _PER_DECADE)
    x = [float(f"{value:.3g}") for value in centres]
    traces = []
    for place, curve in curves.items():
        dense = names[place] == "dense"
        look = Look("#7f7f7f" if dense else shade(place / max(1, len(names) - 1)), "solid", "circle")
        y = (curve[first:last] * _PER_DECADE).round(4)
        traces.append(line(x, y, names[place], look, hover="|w| about %{x:.2~g}: %{y:.2f}", markers=False))
    cells = [[name, f"{int(counts.sum()):,}", _median(counts)] for name, counts in zip(names, counted, strict=True)]
    title = f"Size of the weights left, {layer}"
    note = f"{where}. Every curve has area 1 over all sizes, however few weights are left."
    layout = {
        "xaxis": {"type": "log", "title": {"text": "|w|"}, "dtick": 1, "exponentformat": "power"},
        "yaxis": {"title": {"text": "share per decade"}, "rangemode": "tozero"},
    }
    return figure(
        traces, layout, title=title, note=note,
        alt=f"{title}, {where}: {len(traces)} curves, one a network.",
        columns=("network", "weights", "median |w|, about"), cells=cells,
    )  # fmt: skip


def _range(curves: Sequence[Array]) -> tuple[int, int]:
    """First bin shown and the one after the last."""
    if not curves:
        return 0, 0
    last = max(int(np.flatnonzero(curve)[-1]) for curve in curves) + 1
    first = min(int(np.searchsorted(np.cumsum(curve), _TAIL)) for curve in curves)
    return max(first, last - _SHOWN, 0), last


def _median(counts: Array) -> str:
    if not counts.any():
        return "–"
    place = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return f"{10.0 ** (_DECADES[0] + (place + 0.5) / _PER_DECADE):.2g}"
