"""What units are for, and how layers arrange images: class selectivity and CKA, layer by layer and at every density."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from prunescope.core.types import Array
from prunescope.report.boxes import box_chart
from prunescope.report.by_density import ByDensity
from prunescope.report.charts import Figure
from prunescope.report.heat import HeatCell, HeatTable
from prunescope.report.mis_rows import (
    rows_of_layers,
    selectivity_layers,
    similarity_floor,
    similarity_layers,
)  # fmt: skip
from prunescope.report.places import dense_points, number, percent, recipes_done, spread_out, tickets
from prunescope.report.probe_rows import keys_of
from prunescope.study.results import Results

_BOXES = 3
#: {array of the record: (column of the table, what it is)}.
_DEFINITIONS = {
    "unit.selectivity": ("from_means", "from class means"),
    "unit.best_selectivity": ("from_best", "from best images"),
}


@dataclass(frozen=True)
class RepresentationView:
    """One recipe: sentences, tables, and {place of the figure: figure}."""

    title: str
    words: tuple[str, ...]
    tables: tuple[HeatTable, ...]
    figures: dict[str, Figure] = field(default_factory=dict)


def selectivity_views(found: Results) -> list[RepresentationView]:
    """One per probe `selectivity` and recipe."""
    layers = selectivity_layers(found)
    return [
        _selectivity(found, key, recipe, layers[layers["probe"] == key])
        for key in keys_of(found, "selectivity")
        for recipe in recipes_done(found)
        if dense_points(found)
    ]


def similarity_views(found: Results) -> list[RepresentationView]:
    """One per probe `similarity` and recipe."""
    layers = similarity_layers(found)
    return [
        _similarity(found, key, recipe, layers[layers["probe"] == key])
        for key in keys_of(found, "similarity")
        for recipe in recipes_done(found)
        if len(layers)
    ]


def _selectivity(found: Results, key: str, recipe: str, layers: pd.DataFrame) -> RepresentationView:
    by, title = ByDensity(found, recipe), _title(recipe, key, "selectivity")
    words, tables, figures = [], [], {}
    for array, (column, told) in _DEFINITIONS.items():
        rows = by.means(layers, "layer", column)
        note = f"Mean of living units. {by.how}"
        tables.append(by.heat(rows, f"Class selectivity of a layer’s units, {told}, {title}", note, form=number))
        means = (
            np.nanmean(rows[1][:, [0, -1]], axis=0) if np.isfinite(rows[1][:, [0, -1]]).any(0).all() else [np.nan] * 2
        )
        words.append(
            f"Class selectivity {told}: {number(means[-1])} with {by.last} of the {by.kept}, {number(means[0])} in the "
            "dense networks, means over layers of living units."
        )
        figures[f"selectivity/{key}/{recipe}/{column}"] = _boxes(found, key, by, array, told, title)
    return RepresentationView(title, tuple(words), tuple(tables), figures)


def _boxes(found: Results, key: str, by: ByDensity, array: str, told: str, title: str) -> Figure:
    networks = {"dense": dense_points(found)}
    for round_ in spread_out(sorted(set(by.columns) - {0}), _BOXES):
        networks[f"{by.columns[round_]} kept"] = [p for p in tickets(found, by.recipe) if p.round == round_]
    records = {name: [found.record(point, key) for point in points] for name, points in networks.items()}
    layers = list(records["dense"][0].info["layers"])
    groups: dict[str, list[Array]] = {
        name: [
            np.concatenate([item.arrays[array][dict(rows_of_layers(item))[layer]] for item in own]) for layer in layers
        ]
        for name, own in records.items()
    }
    return box_chart(groups, layers, title=f"Class selectivity of units, {told}, {title}", unit="selectivity")


def _similarity(found: Results, key: str, recipe: str, layers: pd.DataFrame) -> RepresentationView:
    by, title = ByDensity(found, recipe), _title(recipe, key, "similarity")
    mine = layers[(layers["role"] == "ticket") & (layers["recipe"] == recipe)]
    names, floor = similarity_floor(found, key)
    rounds = [round_ for round_ in by.columns if round_]
    values = (
        mine.groupby(["layer", "round"])["cka"]
        .mean()
        .unstack("round")
        .reindex(index=names, columns=rounds)
        .to_numpy(float)
    )
    low = np.array([_least(column) for column in floor.T]) if len(floor) else np.full(len(names), np.nan)
    rows, below = [], []
    for i, name in enumerate(names):
        lost = np.where(values[i] < low[i], values[i] - low[i], 0)
        cells = [HeatCell(number(v), round(float(max(-1, x)), 2)) for v, x in zip(values[i], lost, strict=True)]
        rows.append((name, (*cells, HeatCell(_range(floor[:, i]), 0.0))))
        if values[i, -1] < low[i]:
            below.append(name)
    columns = (*(by.columns[round_] for round_ in rounds), "other seeds")
    note = (
        "CKA (unbiased, linear) of a layer’s features in a ticket and in its dense network: 1 is alike but for "
        f"rotation and scale. Means over seeds; columns: {by.kept} kept; the last is the range over pairs of dense "
        "networks. What is below it is coloured."
    )
    table = HeatTable(f"How alike layers arrange images, {title}", note, "layer", columns, tuple(rows))
    return RepresentationView(title, tuple(_told(by, names, values, below, bool(len(floor)))), (table,))


def _told(by: ByDensity, names: list[str], values: Array, below: list[str], judged: bool) -> list[str]:
    known = np.isfinite(values[:, -1])
    if not known.any():
        return [f"At {by.last} no layer tells images apart any more."]
    worst = int(np.nanargmin(values[:, -1]))
    words = [
        f"At {by.last} of the {by.kept} the layer that changed most is {names[worst]}: CKA {number(values[worst, -1])}."
    ]
    if judged:
        where = f"in {', '.join(below)}" if below else "nowhere"
        words.append(
            f"Layers are less like their dense network’s than those of other seeds are among themselves: {where}."
        )
    if not known.all():
        words.append(f"{percent(1 - float(known.mean()))} of the layers give every image the same, and have no CKA.")
    return words


def _least(values: Array) -> float:
    return float(np.nanmin(values)) if np.isfinite(values).any() else float("nan")


def _range(values: Array) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "–"
    low, high = number(float(known.min())), number(float(known.max()))
    return low if low == high else f"{low} to {high}"


def _title(recipe: str, key: str, probe: str) -> str:
    return recipe if key == probe else f"{recipe} ({key})"
