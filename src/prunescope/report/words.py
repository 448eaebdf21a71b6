"""The summary in words: what was done, what happened to accuracy, what happened to the reasons, what is missing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from prunescope.metrics.families import FAMILIES
from prunescope.report import charts
from prunescope.study.results import Results


@dataclass(frozen=True)
class Headline:
    """One measure that the summary speaks of: the first distance of each array that a probe compares."""

    probe: str
    array: str
    distance: str
    subset: str


def headlines(results: Results) -> list[Headline]:
    """One measure per compared array, over images that both networks get right where that exists."""
    found = []
    for key, probe in results.study.probes.items():
        for array, family in probe.distances.items():
            first = FAMILIES[family][0].name
            rows = _rows(results.pooled, Headline(key, array, first, "both_right"))
            found.append(Headline(key, array, first, "both_right" if len(rows) else "all"))
    return found


def summary(results: Results) -> list[str]:
    """Sentences, most important first. Plain text: the page escapes them."""
    return [_what(results), *_accuracy(results), *_drift(results), *_controls(results)]


def _what(results: Results) -> str:
    study, data = results.study, results.data
    images = sum(data["counts"]["test"])
    recipes = ", ".join(
        f"{r.name} ({r.criterion.name}, {r.scope}, to {_percent(r.schedule.densities()[-1])} in "
        f"{len(r.schedule.densities())} rounds, {_rewind(r.rewind)})"
        for r in study.recipes
    )
    return (
        f"{study.model['name']} on {data['name']} ({images} test images, {len(data['classes'])} classes), "
        f"{len(study.seeds.dense)} dense seeds, {len(study.seeds.tickets)} with tickets. Recipes: {recipes or 'none'}."
    )


def _rewind(rewind: object) -> str:
    to, at = getattr(rewind, "to", ""), getattr(rewind, "at", "")
    return {
        "init": "rewound to the initialisation", "late": f"rewound to {at}",
        "lr": f"learning rate rewound to {at}", "none": "fine-tuned",
    }[to]  # fmt: skip


def _accuracy(results: Results) -> list[str]:
    runs = results.runs
    if runs.empty or "performance.top1" not in runs:
        return []
    dense = runs[runs["role"] == "dense"]["performance.top1"]
    found = [
        f"Dense accuracy is {_percent(dense.mean())} ({_percent(dense.min())} to {_percent(dense.max())} over seeds)."
    ]
    for recipe in results.study.recipes:
        rows = runs[(runs["role"] == "ticket") & (runs["recipe"] == recipe.name)]
        if rows.empty:
            continue
        means = rows.groupby("target")["performance.top1"].mean().sort_index(ascending=False)
        held = [float(at) for at in means.index[means >= dense.min()]]
        last = means.index[-1]
        told = f"at {_percent(last)} of the weights it is {_percent(means.iloc[-1])}"
        if len(held) == len(means):
            found.append(f"Tickets of {recipe.name} stay within the dense seeds' accuracy at every density; {told}.")
        elif held:
            found.append(
                f"Tickets of {recipe.name} reach the dense seeds' accuracy down to {_percent(min(held))}; {told}."
            )
        else:
            found.append(f"Tickets of {recipe.name} lose accuracy from the first round on; {told}.")
    return found


def _drift(results: Results) -> list[str]:
    found = []
    for recipe in results.study.recipes:
        for headline in headlines(results):
            rows = _rows(results.pooled, headline)
            rows = rows[(rows["recipe"] == recipe.name) & (rows["role"] == "ticket")]
            if len(rows):
                found.append(f"{recipe.name}: {_sentence(rows.sort_values('round'), headline)}")
    return found


def _sentence(rows: pd.DataFrame, headline: Headline) -> str:
    first, last = rows.iloc[0], rows.iloc[-1]
    title = str(first["title"])
    name = (
        f"{title[0].upper()}{title[1:]} with the dense network ({headline.probe}: {headline.array.split('.', 1)[-1]}"
        + (", images both get right)" if headline.subset == "both_right" else ")")
    )
    value = f"{last['value']:.2f} at {_percent(last['density'])} of the weights"
    if not np.isfinite(first["floor_low"]):
        return f"{name} is {value}; there is no noise floor to hold it against."
    floor = f"dense networks of other seeds: {first['floor_low']:.2f} to {first['floor_high']:.2f}"
    start = change_point(rows)
    if start is not None:
        return f"{name} leaves the noise floor at {_percent(start)} and is {value} ({floor})."
    if (rows["verdict"] == "within the floor").all():
        return f"{name} stays within the noise floor: {value} ({floor})."
    return f"{name} is {value}, not clearly beyond the noise floor ({floor})."


def change_point(rows: pd.DataFrame) -> float | None:
    """The first density from which on every lower one lies beyond the floor; None when there is none."""
    start = None
    for row in rows.sort_values("round", ascending=False).itertuples():
        if row.verdict != "beyond the floor":
            break
        start = float(row.density)  # type: ignore[arg-type]
    return start


def _controls(results: Results) -> list[str]:
    runs, found = results.runs, []
    if runs.empty or "performance.top1" not in runs:
        return []
    others = runs[~runs["role"].isin(["dense", "ticket"])]
    for recipe, role in charts.series(others):
        rows = others[(others["recipe"] == recipe) & (others["role"] == role)]
        last = rows[rows["round"] == rows["round"].max()]
        density = float(last["target"].iloc[0])
        tickets = runs[
            (runs["role"] == "ticket") & (runs["recipe"] == recipe) & (runs["round"] == last["round"].iloc[0])
        ]
        found.append(
            f"Control at {_percent(density)}: {charts.ROLE[role]} reaches {_percent(last['performance.top1'].mean())}, "
            f"the ticket {_percent(tickets['performance.top1'].mean())}."
        )
    return found


def _rows(pooled: pd.DataFrame, headline: Headline) -> pd.DataFrame:
    if pooled.empty:
        return pooled
    return pooled[
        (pooled["probe"] == headline.probe) & (pooled["array"] == headline.array)
        & (pooled["distance"] == headline.distance) & (pooled["subset"] == headline.subset)
    ]  # fmt: skip


def _percent(value: float) -> str:
    text = f"{100 * value:.1f}"
    return f"{text.removesuffix('.0')} %"
