"""The tables of docs/results/mis-googlenet, from a finished (or half finished) run of examples/googlenet_mis.yaml.

    python examples/googlenet_mis_tables.py runs/googlenet-mis [PATH]

Needs prunescope[stats]. With the PATH of the data, networks of the same seeds that were never trained are scored as
well: what near-chance networks are to be held against. Values are means over ticket seeds, with the seeds' values in
brackets. Rate is the share that is cut, of weights, filters or input channels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from prunescope.data.load import load_data
from prunescope.engine.mis import mis
from prunescope.metrics.claims import permutation_within, pooled_correlation
from prunescope.metrics.mixed import mixed_model, within_model
from prunescope.models.zoo import build_model
from prunescope.probes.mis import Mis
from prunescope.report.claims import chance, claim_view, signed
from prunescope.study.results import Results, results

RATES = [0.2, 0.4, 0.6, 0.8]
#: {column: title}; the last three are made here, of all scored units as one heap.
READINGS = {
    "performance.top1": "Accuracy",
    "mis.accuracy": "Tasks answered rightly, mean over layers",
    "mis.mis": "MIS, mean over layers",
    "mis.mis_second": "MIS by the second judge",
    "mis.mis_linear": "MIS of the head's units alone",
    "mis.dead": "Dead units, share",
    "mis.tied": "Tied units, share",
    "units.mis": "MIS, plain mean over units that are not dead or tied (as published)",
    "units.survivors": "MIS, plain mean over units that are scored in the dense network as well, less there",
    "units.with_dead": "MIS, plain mean, a dead unit counted as 1",
}
ALL_UNITS = ["units.mis", "units.survivors", "units.with_dead"]
ROLES = {"ticket": "retrained", "unretrained": "cut, not retrained"}


def runs_of(found: Results) -> pd.DataFrame:
    """The table of runs with `rate` and the three readings over all units."""
    scores = {(p.role, p.recipe, p.seed, p.round): found.record(p, "mis").arrays for p in found.points}
    rows = []
    for place, arrays in scores.items():
        mis, dense = arrays["unit.mis"], scores["dense", "", place[2], 0]["unit.mis"]
        both = np.isfinite(mis) & np.isfinite(dense)
        filled = np.where(arrays["unit.dead"], 1.0, mis)
        rows.append((*place, np.nanmean(mis), float((mis - dense)[both].mean()), np.nanmean(filled)))
    made = pd.DataFrame(rows, columns=["role", "recipe", "seed", "round", *ALL_UNITS])
    runs = found.runs.merge(made, on=["role", "recipe", "seed", "round"])
    runs["rate"], runs["accuracy"] = (1 - runs["target"]).round(3), runs["performance.top1"]
    return runs


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """As Markdown."""
    print(f"\n**{title}**\n\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def cell(rows: pd.DataFrame, column: str) -> str:
    """Mean over seeds and the seeds' values."""
    values = rows.sort_values("seed")[column].to_numpy(float) if column in rows else np.empty(0)
    if not np.isfinite(values).any():
        return "-"
    each = ", ".join(f"{value:.3f}" for value in values)
    return f"{np.nanmean(values):.3f} ({each})"


def by_rate(runs: pd.DataFrame, column: str) -> Iterator[list[str]]:
    """Rows: dense, the control, and every recipe, retrained and not."""
    dense, control = runs[runs["role"] == "dense"], runs[(runs["role"] == "ticket") & (runs["rate"] == 0)]
    yield ["dense", cell(dense, column), *[""] * len(RATES)]
    yield ["dense, retrained", cell(control, column), *[""] * len(RATES)]
    for role, words in ROLES.items():
        mine = runs[(runs["role"] == role) & (runs["rate"] > 0)]
        for recipe, group in mine.groupby("recipe", sort=False):
            places = [cell(group[group["rate"] == rate], column) for rate in RATES]
            yield [f"{recipe.split(',')[0]}, {words}", "", *places]


def several(runs: pd.DataFrame, role: str) -> pd.DataFrame:
    """Networks of the recipes that were cut to every rate."""
    mine = runs[(runs["role"] == role) & (runs["rate"] > 0)]
    return mine[mine.groupby("recipe")["rate"].transform("nunique") == len(RATES)]


def effect(value: float, low: float, high: float, p: float) -> str:
    """Slope, interval and p."""
    return f"{signed(value)} [{signed(low)}, {signed(high)}], p {chance(p)}"


def analyses(runs: pd.DataFrame, column: str) -> Iterator[list[str]]:
    """The pooled analysis, as published and without its dense points, beside those within methods."""
    for role, words in ROLES.items():
        mine = several(runs, role).dropna(subset=[column])
        methods, seeds = mine["recipe"].tolist(), mine["seed"].tolist()
        if len(set(methods)) < 2:
            continue
        rate, value = mine["rate"].to_numpy(float), mine[column].to_numpy(float)
        dense = runs.loc[(runs["role"] == "dense") & runs["seed"].isin(seeds), column].to_numpy(float)
        repeated = np.tile(dense, len(set(methods)))
        published = pooled_correlation(np.append(rate, np.zeros(len(repeated))), np.append(value, repeated))
        bare = pooled_correlation(rate, value)
        groups = {"method": methods, "seed": seeds}
        slope, p = permutation_within(rate, value, methods)
        inner = within_model(value, {"rate": rate}, groups).effects["rate"]
        model = mixed_model(value, {"rate": rate, "accuracy": mine["accuracy"].to_numpy(float)}, groups)
        yield [f"{words}: pooled r, dense counted once a method (as published)", _correlation(*published)]
        yield [f"{words}: pooled r, pruned networks only", _correlation(*bare)]
        yield [f"{words}: slope within methods, permutation", f"{signed(slope)}, p {chance(p)}"]
        yield [f"{words}: slope within methods and seeds", effect(inner.value, inner.low, inner.high, inner.p)]
        for name, found in model.effects.items():
            told = f"{words}: {model.how} intercepts of method and seed, {name}"
            yield [told, effect(found.value, found.low, found.high, found.p)]
        for method in dict.fromkeys(methods):
            chosen = mine["recipe"] == method
            one = within_model(value[chosen], {"rate": rate[chosen]}, {"seed": mine["seed"][chosen].tolist()})
            each = one.effects["rate"]
            yield [f"{words}: {method.split(',')[0]} alone", effect(each.value, each.low, each.high, each.p)]


def _correlation(r: object, p: float) -> str:
    return f"r {signed(r.value)} [{signed(r.low)}, {signed(r.high)}], p {chance(p)}, {r.n} points"  # type: ignore[attr-defined]


def near_chance(runs: pd.DataFrame) -> Iterator[list[str]]:
    """Networks that were cut and not retrained and are right on less than 15 % of images of ten classes."""
    dense = runs[runs["role"] == "dense"].set_index("seed")
    mine = runs[(runs["role"] == "unretrained") & (runs["accuracy"] < 0.15)]
    for (recipe, rate), group in mine.groupby(["recipe", "rate"], sort=False):
        base = dense.loc[group["seed"]]
        cells = [cell(group, column) for column in ("accuracy", "mis.accuracy", "mis.mis", "units.mis", "mis.dead")]
        changes = (group["mis.accuracy"].to_numpy() - base["mis.accuracy"].to_numpy()).mean()
        yield [f"{recipe.split(',')[0]}, rate {rate}", *cells, signed(float(changes))]


def untrained(found: Results, root: str) -> Iterator[list[str]]:
    """Scores of initialised networks, as the study's probe takes them."""
    data, probe = load_data({**found.study.data, "root": root}), found.study.probes["mis"]
    assert isinstance(probe, Mis)
    first = next(point for point in found.points if point.role == "dense")
    options = {
        "kinds": probe.kinds, "tasks": probe.tasks, "references": probe.references,
        "alpha": float(found.record(first, "mis").info["alpha"]),
    }  # fmt: skip
    for seed in found.study.seeds.dense:
        network = build_model(found.study.model, classes=len(data.classes), channels=data.train.shape[0], seed=seed)
        scores = mis(network, data.train, probe.similarity, **options)
        values = [scores.mean(scores.accuracy), scores.mean(scores.mis), np.nanmean(scores.mis), scores.constant.mean()]
        yield [f"seed {seed}", *(f"{value:.3f}" for value in values)]


def main() -> None:
    """Print all tables."""
    found = results(Path(sys.argv[1]))
    runs = runs_of(found)
    print(f"{len(runs)} networks. " + " ".join(found.problems))
    for column, title in READINGS.items():
        table(title, ["", "rate 0", *(f"rate {rate}" for rate in RATES)], list(by_rate(runs, column)))
    for column in ("mis.mis", "mis.accuracy", "mis.mis_second", "mis.mis_linear", *ALL_UNITS):
        table(f"{READINGS[column]}, against the rate", ["", "per unit of rate"], list(analyses(runs, column)))
    columns = ["accuracy", "tasks", "MIS, layers", "MIS, units", "dead", "tasks less dense"]
    table("Near chance: cut, not retrained, accuracy below 15 %", ["", *columns], list(near_chance(runs)))
    if len(sys.argv) > 2:
        table("Never trained", ["", *columns[1:5]], list(untrained(found, sys.argv[2])))
    view = claim_view(found)
    print("\n" + "\n".join(f"- {sentence}" for sentence in view.words))
    for item in view.tables:
        print(f"\n**Claims, {item.title}: {item.counts}**\n")
        print("\n".join(f"- {sentence}" for sentence in item.words))
        names = ["", "beside", "outcome", "difference", "95 % interval", "margin", "p", "p equal", "seeds", "needed"]
        table(item.title, names, [list(row) for row in item.rows])


if __name__ == "__main__":
    main()
