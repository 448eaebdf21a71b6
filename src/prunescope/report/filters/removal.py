"""What happens as filters are removed in the orders of several methods: curves, who goes first, and of what kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from prunescope.report.charts import Figure, figure
from prunescope.report.filters.folder import Filters
from prunescope.report.places import number, percent
from prunescope.report.style import COLOURS, Look, plain
from prunescope.report.traces import line, numbers

#: Units shown of every order: as many as the enrichment test looks at.
FIRST = 20


@dataclass(frozen=True)
class Order:
    """Who goes first by one method: (channel, whether it is colour-selective, whether it is among the units)."""

    method: str
    seeds: str
    first: tuple[tuple[int, bool, bool], ...]


@dataclass(frozen=True)
class Removal:
    """One layer: its orders, rows of the enrichment table, and which charts there are of it."""

    name: str
    place: int
    orders: tuple[Order, ...]
    enrichment: tuple[tuple[str, ...], ...]
    charts: tuple[str, ...]


def removals(found: Filters, figures: Mapping[str, Figure]) -> list[Removal]:
    """Of every layer of which anything is known."""
    rates = colour_selective(found.units)
    known = [
        Removal(
            layer, place, _orders(found, layer, rates), _enrichment(found.enrichment, layer),
            tuple(key for key in (f"accuracy/{place}", f"diversity/{place}") if key in figures),
        )
        for place, layer in enumerate(found.layers)
    ]  # fmt: skip
    return [item for item in known if item.orders or item.enrichment or item.charts]


def colour_selective(units: pd.DataFrame) -> Mapping[tuple[str, int], bool]:
    """{(layer, channel): whether it is known to be colour-selective}, of all units."""
    return dict(zip(zip(units["layer"], units["channel"], strict=True), units["colour_selective"] == 1, strict=True))


def _orders(found: Filters, layer: str, rates: Mapping[tuple[str, int], bool]) -> tuple[Order, ...]:
    """By every method; of several seeds the first."""
    rows = found.orders[found.orders["layer"] == layer]
    made = []
    for method, part in rows.groupby("method", sort=False):
        seeds = sorted(set(part["seed"].dropna()))
        own = part[part["seed"] == seeds[0]] if seeds else part
        first = own.sort_values("place")["channel"].astype(int).head(FIRST)
        told = f"seed {seeds[0]:.0f}, of {len(seeds)} seeds" if len(seeds) > 1 else ""
        made.append(
            Order(str(method), told, tuple((c, rates.get((layer, c), False), (layer, c) in rates) for c in first))
        )
    return tuple(made)


def _enrichment(table: pd.DataFrame, layer: str) -> tuple[tuple[str, ...], ...]:
    return tuple(_test(row) for row in table[table["layer"] == layer].to_dict("records"))


def _test(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """Method, seed, of the first k so many, the base rate, what chance would give, p."""
    hits, drawn, base, units = (int(row[name]) for name in ("colour_selective", "of", "base", "units"))
    return (
        str(row["method"]), "–" if pd.isna(row["seed"]) else f"{row['seed']:.0f}",
        f"{hits} of {drawn} ({percent(hits / max(drawn, 1))})", f"{base} of {units} ({percent(base / max(units, 1))})",
        f"{drawn * base / max(units, 1):.1f}", number(row["p"]),
    )  # fmt: skip


def curve_figures(found: Filters) -> dict[str, Figure]:
    """{`accuracy/PLACE`, `diversity/PLACE`: chart} of the layers of which there are curves."""
    made: dict[str, Figure] = {}
    looks = dict(zip(dict.fromkeys(found.curves["method"]), COLOURS * 4, strict=False))
    for place, layer in enumerate(found.layers):
        rows = found.curves[found.curves["layer"] == layer]
        if len(rows):
            made[f"accuracy/{place}"] = _curve(rows, "accuracy", "Accuracy", "accuracy", looks)
        if rows["diversity"].notna().any():
            clusters = rows[rows["diversity"].notna() & ~((rows["fine_tuned"] == 1) & _twice(rows))]
            made[f"diversity/{place}"] = _curve(clusters, "diversity", "Diversity", "share of groups kept", looks)
    return made


def _twice(rows: pd.DataFrame) -> pd.Series[bool]:
    """Whether the same removal stands there without fine-tuning: the groups that it keeps are the same."""
    plain_rows = rows[rows["fine_tuned"] == 0]
    keys = ["method", "seed", "removed"]
    return pd.Series(pd.MultiIndex.from_frame(rows[keys]).isin(pd.MultiIndex.from_frame(plain_rows[keys])), rows.index)


def _curve(rows: pd.DataFrame, column: str, title: str, unit: str, looks: Mapping[str, str]) -> Figure:
    """Against units removed: mean over seeds as a line, their range as a band."""
    traces, cells, told = [], [], []
    for (method, tuned), part in rows.groupby(["method", "fine_tuned"], sort=False):
        name = f"{method}, fine-tuned" if tuned else str(method)
        look = Look(looks[str(method)], "solid" if tuned else "dot", "circle" if tuned else "circle-open")
        over = part.groupby("removed")[column].agg(["mean", "min", "max"]).reset_index()
        if (over["max"] > over["min"]).any():
            traces.append(_ribbon(over, name, look))
        traces.append(line(over["removed"], over["mean"], name, look, hover="%{x} removed: %{y:.3f}"))
        last = over.iloc[-1]
        told.append(f"{name} {number(last['mean'])} with {last['removed']:.0f} removed")
        cells += [
            [name, f"{at:.0f}", number(mean), f"{number(low)} to {number(high)}"]
            for at, mean, low, high in over.itertuples(index=False)
        ]
    layout = {
        "xaxis": {"title": {"text": "filters removed"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": unit}, "rangemode": "tozero"},
    }
    return figure(
        traces, layout, title=f"{title} against filters removed",
        note="Mean over seeds; bands reach from the least to the largest.", alt=f"{title}: {'; '.join(told)}.",
        columns=("method", "removed", "mean", "seeds"), cells=cells,
    )  # fmt: skip


def _ribbon(over: pd.DataFrame, name: str, look: Look) -> dict[str, Any]:
    x, y = (numbers([*over[a], *over[b][::-1]]) for a, b in (("removed", "removed"), ("max", "min")))
    return {
        "type": "scatter", "mode": "lines", "x": x, "y": y, "fill": "toself", "fillcolor": f"{look.colour}26",
        "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False, "legendgroup": plain(name),
    }  # fmt: skip
