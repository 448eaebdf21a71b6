"""Figures as Plotly JSON: tables in, plain data out. Colours are set by the page, so that light and dark both work."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

Figure = dict[str, Any]

#: Okabe and Ito's colours, distinguishable with any colour vision; series take them in order.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a6d3b", "#7f7f7f")
_DASH = {"ticket": "solid", "random": "dot", "dense-control": "dash", "reinit": "dashdot", "unretrained": "longdash"}
_SYMBOL = {"ticket": "circle", "random": "x", "dense-control": "square", "reinit": "diamond", "unretrained": "cross"}
ROLE = {
    "dense": "dense", "ticket": "ticket", "random": "random mask", "dense-control": "dense, retrained",
    "reinit": "reinitialised", "unretrained": "cut, not retrained",
}  # fmt: skip


def series(table: pd.DataFrame) -> list[tuple[str, str]]:
    """(recipe, role) pairs in a fixed order: tickets first."""
    pairs = {(str(row.recipe), str(row.role)) for row in table.itertuples() if row.role != "dense"}
    order = list(ROLE)
    return sorted(pairs, key=lambda pair: (order.index(pair[1]), pair[0]))


def label(recipe: str, role: str) -> str:
    """Name of a series, safe inside a figure."""
    return html.escape(recipe if role == "ticket" else f"{recipe}: {ROLE[role]}")


def metric_curve(runs: pd.DataFrame, column: str, *, title: str, unit: str = "") -> Figure:
    """A metric of the checkpoints against density: means over seeds, every seed as a point, dense as a band."""
    traces: list[Any] = []
    shown = runs[runs[column].notna()]
    recipes = sorted(set(shown["recipe"]) - {""})
    for recipe, role in series(shown):
        rows = shown[(shown["recipe"] == recipe) & (shown["role"] == role)]
        means = rows.groupby("round", sort=True).agg(x=("target", "mean"), y=(column, "mean"))
        style = _style(recipes.index(recipe), role)
        traces.append(_line(means["x"], means["y"], label(recipe, role), style))
        text = [f"seed {seed}" for seed in rows["seed"]]
        traces.append(_dots(rows["target"], rows[column], text, label(recipe, role), style))
    dense = shown[shown["role"] == "dense"][column].to_numpy()
    layout = _layout(title, unit, runs["target"])
    if len(dense):
        layout["shapes"] = [_band(dense.min(), dense.max()), _rule(dense.mean())]
        layout["annotations"] = [_note(f"dense, {len(dense)} seeds", dense.max())]
    return {"data": traces, "layout": layout}


def drift_curve(pooled: pd.DataFrame, drift: pd.DataFrame) -> Figure:
    """A measure against density: means over seeds with intervals, every seed as a point, the noise floor as a band."""
    first = pooled.iloc[0]
    traces: list[Any] = []
    recipes = sorted(set(pooled["recipe"]))
    for recipe, role in series(pooled):
        rows = pooled[(pooled["recipe"] == recipe) & (pooled["role"] == role)].sort_values("round")
        dots = drift[(drift["recipe"] == recipe) & (drift["role"] == role)]
        style = _style(recipes.index(recipe), role)
        traces.append(_line(rows["density"], rows["value"], label(recipe, role), style, rows["low"], rows["high"]))
        text = [
            f"seed {s}, {n} items, {d} without a value"
            for s, n, d in zip(dots["seed"], dots["n"], dots["dropped"], strict=True)
        ]
        traces.append(_dots(dots["density"], dots["value"], text, label(recipe, role), style))
    layout = _layout(str(first["title"]), str(first["unit"]), pooled["density"])
    if np.isfinite(first["floor_low"]):
        layout["shapes"] = [_band(first["floor_low"], first["floor_high"])]
        layout["annotations"] = [_note("noise floor: other seeds", first["floor_high"])]
    return {"data": traces, "layout": layout}


def against_accuracy(runs: pd.DataFrame, drift: pd.DataFrame, column: str) -> Figure:
    """Drift against accuracy, one point a checkpoint: at equal accuracy, do the reasons differ?"""
    keys = ["role", "recipe", "seed", "round"]
    joined = drift.merge(runs[[*keys, column]], on=keys)
    first = drift.iloc[0]
    recipes = sorted(set(joined["recipe"]))
    traces = []
    for recipe, role in series(joined):
        rows = joined[(joined["recipe"] == recipe) & (joined["role"] == role)]
        text = [f"{d:.1%} of the weights, seed {s}" for d, s in zip(rows["density"], rows["seed"], strict=True)]
        style = _style(recipes.index(recipe), role)
        traces.append(_dots(rows[column], rows["value"], text, label(recipe, role), style, alone=True, size=9))
    layout = _layout(str(first["title"]), str(first["unit"]), None)
    layout["xaxis"] = {"title": {"text": "accuracy on test images"}, "tickformat": ".1%"}
    return {"data": traces, "layout": layout}


def heat_table(values: np.ndarray[Any, Any], rows: Sequence[str], columns: Sequence[str], *, title: str) -> Figure:
    """A matrix in [0, 1] as coloured cells, for example recall of every class at every density."""
    return {
        "data": [
            {
                "type": "heatmap", "z": [[_number(v) for v in row] for row in values], "zmin": 0, "zmax": 1,
                "x": list(columns), "y": [html.escape(r) for r in rows], "colorscale": "Viridis",
                "texttemplate": "%{z:.0%}" if len(rows) <= 25 else "",
                "hovertemplate": "%{y}, %{x}: %{z:.1%}<extra></extra>",
            }
        ],
        "layout": {
            "title": {"text": title}, "yaxis": {"autorange": "reversed", "automargin": True},
            "xaxis": {"type": "category", "title": {"text": "weights kept"}}, "height": 160 + 26 * min(len(rows), 40),
        },
    }  # fmt: skip


def bump_chart(ranks: Mapping[str, Sequence[float | None]], columns: Sequence[str], *, title: str, top: int) -> Figure:
    """Rank of every concept at every density; the first `top` ranks are shown."""
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "x": list(columns), "y": list(values),
            "name": html.escape(name),
            "line": {"color": COLOURS[i % len(COLOURS)], "shape": "spline", "width": 3}, "marker": {"size": 10},
            "connectgaps": False, "hovertemplate": "%{fullData.name}: rank %{y} at %{x}<extra></extra>",
        }
        for i, (name, values) in enumerate(ranks.items())
    ]  # fmt: skip
    return {
        "data": traces,
        "layout": {
            "title": {"text": title}, "xaxis": {"type": "category", "title": {"text": "weights kept"}},
            "yaxis": {"range": [top + 0.5, 0.5], "dtick": 1, "title": {"text": "rank"}},
        },
    }  # fmt: skip


def bars(values: Mapping[str, Sequence[float]], names: Sequence[str], *, title: str, unit: str) -> Figure:
    """Grouped bars: {series: value per name}."""
    return {
        "data": [
            {
                "type": "bar", "x": [html.escape(n) for n in names], "y": [_number(v) for v in found],
                "name": html.escape(name), "marker": {"color": COLOURS[i % len(COLOURS)]},
            }
            for i, (name, found) in enumerate(values.items())
        ],
        "layout": {"title": {"text": title}, "yaxis": {"title": {"text": unit}}, "xaxis": {"automargin": True}},
    }  # fmt: skip


def _style(index: int, role: str) -> dict[str, Any]:
    roles = list(_DASH)
    colour = COLOURS[(index + (0 if role == "ticket" else 2 + roles.index(role))) % len(COLOURS)]
    return {"color": colour, "dash": _DASH[role], "symbol": _SYMBOL[role]}


def _line(x: Any, y: Any, name: str, style: Mapping[str, Any], low: Any = None, high: Any = None) -> Figure:
    trace: Figure = {
        "type": "scatter", "mode": "lines+markers", "x": _numbers(x), "y": _numbers(y), "name": name,
        "legendgroup": name, "line": {"color": style["color"], "dash": style["dash"], "width": 2.5},
        "marker": {"symbol": style["symbol"], "size": 8},
        "hovertemplate": "%{x:.1%} kept: %{y:.3f}<extra>%{fullData.name}</extra>",
    }  # fmt: skip
    if low is not None and np.isfinite(np.asarray(low, dtype=float)).any():
        trace["error_y"] = {
            "type": "data", "symmetric": False, "array": _numbers(np.asarray(high) - np.asarray(y)),
            "arrayminus": _numbers(np.asarray(y) - np.asarray(low)), "thickness": 1.5, "width": 4,
        }  # fmt: skip
    return trace


def _dots(
    x: Any, y: Any, text: Sequence[str], name: str, style: Mapping[str, Any], *, alone: bool = False, size: int = 6
) -> Figure:
    return {
        "type": "scatter", "mode": "markers", "x": _numbers(x), "y": _numbers(y), "name": name, "legendgroup": name,
        "showlegend": alone, "text": list(text), "opacity": 0.9 if alone else 0.45,
        "marker": {"color": style["color"], "symbol": style["symbol"], "size": size},
        "hovertemplate": "%{y:.3f}, %{text}<extra>%{fullData.name}</extra>",
    }  # fmt: skip


def _layout(title: str, unit: str, densities: pd.Series[float] | None) -> Figure:
    layout: Figure = {"title": {"text": html.escape(title)}, "yaxis": {"title": {"text": html.escape(unit)}}}
    if densities is not None:
        ticks = sorted({round(float(d), 6) for d in densities if d > 0} | {1.0})
        layout["xaxis"] = {
            "type": "log", "autorange": "reversed", "title": {"text": "weights kept (dense on the left)"},
            "tickvals": ticks, "ticktext": [f"{t:.1%}".replace(".0%", "%") for t in ticks],
        }  # fmt: skip
    return layout


def _band(low: float, high: float) -> Figure:
    return {
        "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": float(low), "y1": float(high), "layer": "below",
        "line": {"width": 0}, "fillcolor": "rgba(128,128,128,0.22)",
    }  # fmt: skip


def _rule(at: float) -> Figure:
    return {
        "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": float(at), "y1": float(at), "layer": "below",
        "line": {"width": 1, "color": "rgba(128,128,128,0.8)", "dash": "dot"},
    }  # fmt: skip


def _note(text: str, at: float) -> Figure:
    return {
        "xref": "paper", "x": 1, "xanchor": "right", "y": float(at), "yanchor": "bottom", "text": text,
        "showarrow": False, "font": {"size": 12},
    }  # fmt: skip


def _numbers(values: Any) -> list[float | None]:
    return [_number(v) for v in values]


def _number(value: Any) -> float | None:
    """JSON has no NaN; a gap is None."""
    return float(value) if np.isfinite(value) else None
