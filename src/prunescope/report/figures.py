"""Which figures the page has, by their place on it."""

from __future__ import annotations

import math

import pandas as pd

from prunescope.report.charts import Figure, against_accuracy, drift_curve, metric_curve, training_curves
from prunescope.report.facts import metrics
from prunescope.report.measures import measures, rows, within_range
from prunescope.report.places import percent, performance_key, recipes_done, units
from prunescope.report.style import looks
from prunescope.study.results import Results


def figures(found: Results) -> dict[str, Figure]:
    """{place: figure}: `metric/COLUMN`, `drift/MEASURE`, `accuracy/MEASURE`, `training/RECIPE`, `effective`."""
    if found.runs.empty:
        return {}
    return {**_metrics(found), **_effective(found), **_drifts(found), **_training(found)}


def _metrics(found: Results) -> dict[str, Figure]:
    shown = looks(found)
    return {
        f"metric/{column}": metric_curve(
            found.runs,
            column,
            looks=shown,
            title=fact.title,
            unit=fact.unit,
            note=_better(fact.better),
            chance=_chance(found.runs, column),
            units=units(found),
        )
        for column, fact in metrics(found).items()
    }


def _better(better: bool | None) -> str:
    return "" if better is None else f"{'Higher' if better else 'Lower'} is better."


def _chance(runs: pd.DataFrame, column: str) -> float:
    """Heat strewn at random lies on the object as often as the object covers the image."""
    key, _, name = column.partition(".")
    area = f"{key}.mask_area"
    known = name.startswith(("inside.", "pointing.")) and area in runs
    return float(runs[area].mean()) if known else math.nan


def _effective(found: Results) -> dict[str, Figure]:
    pruned = found.runs[~found.runs["role"].isin(["dense", "dense-control"])]
    if pruned.empty:
        return {}
    # Over what is kept of the weights, which is not what was asked for where filters or blocks are cut.
    live = pruned.assign(live=pruned["effective"] / pruned["density"], target=pruned["density"])
    title = "Kept weights on a live path from input to output"
    return {"effective": metric_curve(live, "live", looks=looks(found), title=title, unit="share of the kept weights")}


def _drifts(found: Results) -> dict[str, Figure]:
    shown, pooled = looks(found), within_range(found)
    column = f"{performance_key(found.study)}.top1"
    result = {}
    for item in measures(found):
        drift = rows(found.drift, item)
        result[f"drift/{item.figure}"] = drift_curve(rows(pooled, item), drift, looks=shown, units=units(found))
        result[f"accuracy/{item.figure}"] = against_accuracy(found.runs, drift, column, looks=shown)
    return result


def _training(found: Results) -> dict[str, Figure]:
    """One figure per recipe: the dense training and the retraining of every round."""
    if found.history.empty:
        return {}
    column, unit = ("val_accuracy", "accuracy on validation images")
    if column not in found.history or not found.history[column].notna().any():
        column, unit = ("accuracy", "accuracy on training images")
    dense = found.history["role"] == "dense"
    result = {}
    for recipe in recipes_done(found) or [""]:
        chosen = found.history[dense | ((found.history["role"] == "ticket") & (found.history["recipe"] == recipe))]
        densities = dict(zip(found.runs["round"], found.runs["target"], strict=True)) if not recipe else {
            point.round: point.density for point in found.points if point.recipe == recipe
        }  # fmt: skip
        names = {number: "dense" if number == 0 else percent(densities[number]) for number in {0, *densities}}
        title = f"Training, {recipe}" if recipe else "Training"
        result[f"training/{recipe}"] = training_curves(chosen, names, column, title=title, unit=unit)
    return result
