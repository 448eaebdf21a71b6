"""Figures as plain data for Plotly: tables in, JSON-able mappings out. The page sets colours of text and lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from prunescope.report.places import number, percent
from prunescope.report.style import COLOURS, Look, plain, series, series_name
from prunescope.report.traces import band, density_axis, dots, line, rule, shade, span

#: `data` and `layout` for Plotly; `title`, `note`, `alt` and `table` (columns, rows) as plain text for the page.
Figure = dict[str, Any]
Looks = Mapping[tuple[str, str], Look]


_DENSE = Look("#7f7f7f", "solid", "circle-open")
_JUDGED = ("density", "value", "low", "high", "verdict")


def figure(
    data: list[Any], layout: Figure, *, title: str, unit: str = "", note: str = "", alt: str = "",
    columns: Sequence[str] = (), cells: Iterable[Sequence[str]] = (),
) -> Figure:  # fmt: skip
    """A figure with its text alternative: a sentence, and its numbers as a table."""
    layout = {"yaxis": {"title": {"text": plain(unit)}}, **layout}
    table = {"columns": list(columns), "rows": [list(row) for row in cells]}
    return {"data": data, "layout": layout, "title": title, "note": note, "alt": alt, "table": table}


def metric_curve(
    runs: pd.DataFrame,
    column: str,
    *,
    looks: Looks,
    title: str,
    unit: str = "",
    note: str = "",
    chance: float = math.nan,
    units: str = "weights",
) -> Figure:
    """A metric of the checkpoints against density: means over seeds, every seed as a point, dense as a band."""
    shown = runs[runs[column].notna()]
    dense = shown[shown["role"] == "dense"][column].to_numpy()
    axis = span(runs["target"])
    traces = [band(dense.min(), dense.max(), f"dense, {len(dense)} seeds", axis)] if len(dense) else []
    if math.isfinite(chance):
        traces.append(rule(chance, "chance", axis))
    told, cells = [], [["dense", percent(1.0), number(dense.mean()), _seeds(dense)]] if len(dense) else []
    if len(dense):
        traces.append(dots([1.0] * len(dense), dense, ["dense"] * len(dense), "dense", _DENSE))
    for recipe, role in series(shown):
        rows = shown[(shown["recipe"] == recipe) & (shown["role"] == role)].sort_values(["round", "seed"])
        means = rows.groupby("round", sort=True).agg(x=("target", "mean"), y=(column, "mean"))
        name, look = series_name(recipe, role), looks[recipe, role]
        traces.append(line(means["x"], means["y"], name, look))
        traces.append(dots(rows["target"], rows[column], [f"seed {s}" for s in rows["seed"]], name, look))
        told.append(_told(name, means["x"], means["y"]))
        cells += [
            [name, percent(group["target"].max()), number(group[column].mean()), _seeds(group[column])]
            for _, group in rows.groupby("round")
        ]
    alt = "; ".join([*told, f"dense {number(dense.min())} to {number(dense.max())}"] if len(dense) else told)
    return figure(
        traces, {"xaxis": density_axis(runs["target"], axis, units)}, title=title, unit=unit, note=note,
        alt=f"{title}: {alt}.", columns=("series", f"{units} kept", "mean", "seeds"), cells=cells,
    )  # fmt: skip


def drift_curve(pooled: pd.DataFrame, drift: pd.DataFrame, *, looks: Looks, units: str = "weights") -> Figure:
    """A measure against density: means over seeds with intervals, every seed as a point, the noise floor as a band."""
    first = pooled.iloc[0]
    axis = span(pooled["density"])
    floor = math.isfinite(first["floor_low"])
    traces = [band(first["floor_low"], first["floor_high"], "noise floor: other seeds", axis)] if floor else []
    told, cells = [], []
    for recipe, role in series(pooled):
        rows = pooled[(pooled["recipe"] == recipe) & (pooled["role"] == role)].sort_values("round")
        found = drift[(drift["recipe"] == recipe) & (drift["role"] == role)]
        name, look = series_name(recipe, role), looks[recipe, role]
        traces.append(line(rows["density"], rows["value"], name, look, (rows["low"], rows["high"])))
        traces.append(dots(found["density"], found["value"], _counts(found), name, look))
        told.append(_told(name, rows["density"], rows["value"]))
        cells += [
            [name, percent(density), number(value), f"{number(low)} to {number(high)}", told_]
            for density, value, low, high, told_ in rows[list(_JUDGED)].itertuples(index=False, name=None)
        ]
    title = sentence_case(str(first["title"]))
    alt = "; ".join(told) + (f"; floor {number(first['floor_low'])} to {number(first['floor_high'])}" if floor else "")
    return figure(
        traces, {"xaxis": density_axis(pooled["density"], axis, units)}, title=title, unit=str(first["unit"]),
        note=_direction(first["higher_is_better"]), alt=f"{title}: {alt}.",
        columns=("series", f"{units} kept", "mean", "95 % interval", "verdict"), cells=cells,
    )  # fmt: skip


def against_accuracy(runs: pd.DataFrame, drift: pd.DataFrame, column: str, *, looks: Looks) -> Figure:
    """Drift against accuracy, one point a checkpoint: at equal accuracy, do the reasons differ?"""
    joined = drift.merge(runs[["role", "recipe", "seed", "round", column]], on=["role", "recipe", "seed", "round"])
    first = drift.iloc[0]
    traces, cells = [], []
    for recipe, role in series(joined):
        rows = joined[(joined["recipe"] == recipe) & (joined["role"] == role)].sort_values(["round", "seed"])
        name = series_name(recipe, role)
        text = [f"{percent(d)} kept, seed {s}" for d, s in zip(rows["density"], rows["seed"], strict=True)]
        traces.append(dots(rows[column], rows["value"], text, name, looks[recipe, role], alone=True))
        pairs = zip(text, rows[column], rows["value"], strict=True)
        cells += [[name, what, percent(float(accuracy)), number(float(value))] for what, accuracy, value in pairs]
    title = f"{sentence_case(str(first['title']))}, at equal accuracy"
    layout = {"xaxis": {"title": {"text": "accuracy on test images"}, "tickformat": ".2~%"}}
    return figure(
        traces, layout, title=title, unit=str(first["unit"]), note=_direction(first["higher_is_better"]),
        alt=f"{title}: one point per checkpoint.",
        columns=("series", "checkpoint", "accuracy", "drift"), cells=cells,
    )  # fmt: skip


def training_curves(history: pd.DataFrame, names: Mapping[int, str], column: str, *, title: str, unit: str) -> Figure:
    """A value per epoch, mean over seeds, one line a round (0 is dense), darker as fewer weights are left."""
    traces, cells = [], []
    rounds = sorted(set(history["round"]))
    for place, number_of in enumerate(rounds):
        means = history[history["round"] == number_of].groupby("epoch")[column].mean()
        colour = "#7f7f7f" if number_of == 0 else shade(place / max(1, len(rounds) - 1))
        look = Look(colour, "dash" if number_of == 0 else "solid", "circle")
        traces.append(line(means.index, means, names[number_of], look, hover="epoch %{x}: %{y:.3f}", markers=False))
        if len(means):
            cells.append([names[number_of], str(means.index[-1]), number(means.iloc[0]), number(means.iloc[-1])])
    layout = {"xaxis": {"title": {"text": "epoch"}, "rangemode": "tozero"}}
    return figure(
        traces, layout, title=title, unit=unit, alt=f"{title}: {len(traces)} lines, one a round.",
        columns=("round", "epochs", "first", "last"), cells=cells,
    )  # fmt: skip


def bump_chart(
    ranks: Mapping[str, Sequence[float | None]], columns: Sequence[str], *, title: str, top: int, units: str = "weights"
) -> Figure:
    """Rank of every concept at every density; the first `top` ranks are shown."""
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "x": list(columns), "y": list(values), "name": plain(name),
            "line": {"color": COLOURS[i % len(COLOURS)], "dash": ("solid", "dot", "dash")[i // len(COLOURS) % 3],
                     "width": 3}, "marker": {"size": 11},
            "connectgaps": False, "hovertemplate": f"{plain(name)}: rank %{{y}} at %{{x}}<extra></extra>",
        }
        for i, (name, values) in enumerate(ranks.items())
    ]  # fmt: skip
    layout = {
        "xaxis": {"type": "category", "title": {"text": plain(f"{units} kept")}, "categoryarray": list(columns)},
        "yaxis": {"range": [top + 0.5, 0.5], "dtick": 1, "title": {"text": "rank"}},
    }
    cells = [[name, *("–" if v is None else f"{v:.0f}" for v in values)] for name, values in ranks.items()]
    alt = f"{title}: ranks of {len(ranks)} concepts over {len(columns)} networks."
    return figure(traces, layout, title=title, alt=alt, columns=("concept", *columns), cells=cells)


def sentence_case(text: str) -> str:
    """With a capital letter in front."""
    return text[:1].upper() + text[1:]


def _direction(better: Any) -> str:
    return "0 is alike." if better is None else f"{'Higher' if better else 'Lower'} is more alike."


def _told(name: str, x: pd.Series[float], y: pd.Series[float]) -> str:
    first, last = (f"{number(y.iloc[i])} at {percent(x.iloc[i])}" for i in (0, -1))
    return f"{name} {first}" if len(y) == 1 else f"{name} from {first} to {last}"


def _seeds(values: Iterable[float]) -> str:
    return ", ".join(number(v) for v in values)


def _counts(found: pd.DataFrame) -> list[str]:
    triples = zip(found["seed"], found["n"], found["dropped"], strict=True)
    return [f"seed {seed}, {n} items, {dropped} without a value" for seed, n, dropped in triples]
