"""What each layer alone could lose before accuracy did: the scans that recipes by sensitivity rest on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from prunescope.report.heat import HeatCell, HeatTable, shares
from prunescope.report.places import percent
from prunescope.study.results import Results

COLUMNS = ["scan", "criterion", "granularity", "seed", "layer", "rate", "accuracy", "dense", "tolerance", "largest"]
#: Fall of accuracy that has the full colour.
_FULL = 0.25


def scan_table(found: Results) -> pd.DataFrame:
    """One row per scan, layer and rate: accuracy on the validation images with so much of this layer cut; `largest`
    is the layer's largest rate within the tolerance."""
    return pd.DataFrame(list(_rows(found)), columns=COLUMNS)


def _rows(found: Results) -> Iterator[tuple[object, ...]]:
    for folder in sorted(path.name for path in found.store.cells.glob("scan-*") if found.store.has(path.name)):
        facts, scan = found.store.facts(folder), found.store.json(folder, "scan.json")
        how = [
            _named(facts["params"].get(key, default)) for key, default in (("criterion", ""), ("granularity", "weight"))
        ]
        seed = found.store.facts(facts["parents"]["previous"])["params"].get("seed", 0)
        for layer, values in scan["accuracy"].items():
            for rate, value in zip(scan["rates"], values, strict=True):
                largest = scan["largest"][layer]
                yield folder, *how, seed, layer, rate, value, scan["dense"], scan["tolerance"], largest


def _named(spec: object) -> str:
    """A part's name, with its options if it has some."""
    if not isinstance(spec, dict):
        return str(spec)
    options = ", ".join(f"{key} {value}" for key, value in spec.items() if key != "name")
    return f"{spec['name']} ({options})" if options else str(spec["name"])


def sensitivity_tables(found: Results) -> list[HeatTable]:
    """One table per way to score and cut, means over seeds."""
    table = scan_table(found)
    return [_heat(str(by), str(units), part) for (by, units), part in table.groupby(["criterion", "granularity"])]


def _heat(by: str, units: str, part: pd.DataFrame) -> HeatTable:
    part = part.assign(layer=part["layer"].str.removesuffix(".weight"))
    mean = part.pivot_table(index="layer", columns="rate", values="accuracy", sort=False).sort_index(axis=1)
    dense, tolerance = part.groupby("seed")["dense"].first().mean(), part["tolerance"].iloc[0]
    largest = part.groupby("layer")["largest"].agg(["min", "max"])
    rows = shares(mean.to_numpy(), (mean.to_numpy() - dense) / _FULL, [str(name) for name in mean.index])
    seeds = part["seed"].nunique()
    return HeatTable(
        f"What each layer alone can lose, {units} by {by}",
        f"Accuracy on the validation images with so much of one layer cut and nothing retrained, mean over {seeds} "
        f"dense networks ({percent(dense)} before). The last column is the largest rate within {tolerance:g} of that; "
        "recipes by sensitivity share their cuts out in these proportions.",
        "layer", (*(percent(float(rate)) for rate in mean.columns), "largest rate"),
        tuple((name, (*cells, HeatCell(_span(*largest.loc[name]), 0.0))) for name, cells in rows),
    )  # fmt: skip


def _span(low: float, high: float) -> str:
    return percent(low) if np.isclose(low, high) else f"{percent(low)} to {percent(high)}"
