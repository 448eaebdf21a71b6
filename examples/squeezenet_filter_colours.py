"""Colour-selective filters of SqueezeNet against the others: part of `squeezenet_filter_tables.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array
from prunescope.metrics.enrichment import enrichment

DRAWS = 2000


def colours(frame: pd.DataFrame, sees: pd.DataFrame) -> pd.DataFrame:
    """Colour-selective filters against the others, layer by layer: does one of them matter less?"""
    both = frame.merge(sees.drop(columns="live"), on=["layer", "channel"])
    found = []
    for layer, part in both.groupby("layer", sort=False):
        kind = part["colour_selective"].to_numpy() == 1
        order = np.argsort(part["place"].to_numpy())
        row: dict[str, Any] = {"layer": layer, "filters": len(part), "colour_selective": int(kind.sum())}
        first = min(20, len(part))
        hits = enrichment(kind[order])
        row |= {"first": first, "colour_among_first": int(hits.hits[first - 1]), "p_enriched": hits.p[first - 1]}
        for name in ("car", "mean_drop"):
            values = part[name].to_numpy()
            row |= _compared(values[kind], values[~kind], name)
            for index in ("colour", "shape", "chroma"):
                row |= _correlated(part[index].to_numpy(dtype=float), values, f"{index}_{name}")
        found.append(row)
    return pd.DataFrame(found).round(4)


def _compared(ours: Array, others: Array, name: str) -> dict[str, float]:
    """Chance that one of ours is above one of the others (ties half), percentile bootstrap over filters; rank test."""
    if min(len(ours), len(others)) < 2:
        return {}

    def above(a: Array, b: Array) -> float:
        return float((a[:, None] > b).mean() + (a[:, None] == b).mean() / 2)

    generator = numpy_generator(0, "colour against shape", name)
    draws = [above(generator.choice(ours, len(ours)), generator.choice(others, len(others))) for _ in range(DRAWS)]
    low, high = np.quantile(draws, (0.025, 0.975))
    p = stats.mannwhitneyu(ours, others, alternative="two-sided").pvalue
    return {
        f"{name}_of_colour": ours.mean(), f"{name}_of_others": others.mean(), f"{name}_above": above(ours, others),
        f"{name}_above_low": low, f"{name}_above_high": high, f"{name}_p": p,
    }  # fmt: skip


def _correlated(index: Array, values: Array, name: str) -> dict[str, float]:
    """Spearman over filters, percentile bootstrap."""
    known = np.isfinite(index)
    if known.sum() < 10:
        return {}
    a, b = index[known], values[known]
    generator = numpy_generator(0, "correlation", name)
    draws = [stats.spearmanr(a[i], b[i]).statistic for i in generator.integers(len(a), size=(DRAWS // 2, len(a)))]
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return {f"rho_{name}": stats.spearmanr(a, b).statistic, f"rho_{name}_low": low, f"rho_{name}_high": high}
