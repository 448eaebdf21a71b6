"""Colour-selective filters of SqueezeNet against the others: part of `squeezenet_filter_tables.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array
from prunescope.metrics.enrichment import enrichment

DRAWS = 2000


def colours(frame: pd.DataFrame, sees: pd.DataFrame, measured: Mapping[str, Array]) -> pd.DataFrame:
    """Colour-selective filters against the others, layer by layer: does one of them matter less?

    Intervals: 95 %, filters and images resampled: the filters of a layer are measured on the same images.

    Args:
        frame: a row per filter.
        measured: {`car`, `mean_drop`: (filters, images) whose mean over images these are}.
    """
    both = frame.assign(row=np.arange(len(frame))).merge(sees.drop(columns="live"), on=["layer", "channel"])
    found = []
    for layer, part in both.groupby("layer", sort=False):
        kind = part["colour_selective"].to_numpy() == 1
        order = np.argsort(part["place"].to_numpy())
        row: dict[str, Any] = {"layer": layer, "filters": len(part), "colour_selective": int(kind.sum())}
        first = min(20, len(part))
        hits = enrichment(kind[order])
        row |= {"first": first, "colour_among_first": int(hits.hits[first - 1]), "p_enriched": hits.p[first - 1]}
        for name, images in measured.items():
            values = images[part["row"]].astype(float)
            row |= _compared(values, kind, name)
            for index in ("colour", "shape", "chroma"):
                row |= _correlated(part[index].to_numpy(dtype=float), values, f"{index}_{name}")
        found.append(row)
    return pd.DataFrame(found).round(4)


def _compared(values: Array, kind: Array, name: str) -> dict[str, float]:
    """Chance that the mean of one of this kind is above that of another filter (ties half); rank test over filters."""
    if min(kind.sum(), (~kind).sum()) < 2:
        return {}

    def above(a: Array, b: Array) -> float:
        return float((a[:, None] > b).mean() + (a[:, None] == b).mean() / 2)

    generator = numpy_generator(0, "colour against shape", name)
    drawn, mean = resampled(values, generator), values.mean(1)
    pairs = ((means[kind], means[~kind]) for means in drawn.T)
    draws = [above(generator.choice(a, len(a)), generator.choice(b, len(b))) for a, b in pairs]
    low, high = np.quantile(draws, (0.025, 0.975))
    ours, others = mean[kind], mean[~kind]
    p = stats.mannwhitneyu(ours, others, alternative="two-sided").pvalue
    return {
        f"{name}_of_colour": ours.mean(), f"{name}_of_others": others.mean(), f"{name}_above": above(ours, others),
        f"{name}_above_low": low, f"{name}_above_high": high, f"{name}_p": p,
    }  # fmt: skip


def _correlated(index: Array, values: Array, name: str) -> dict[str, float]:
    """Spearman of an index (filters,) with the means of values (filters, images)."""
    known = np.isfinite(index)
    if known.sum() < 10:
        return {}
    a, generator = index[known], numpy_generator(0, "correlation", name)
    drawn = resampled(values[known], generator)
    chosen = generator.integers(len(a), size=(DRAWS, len(a)))
    draws = [stats.spearmanr(a[i], means[i]).statistic for i, means in zip(chosen, drawn.T, strict=True)]
    low, high = np.nanquantile(draws, (0.025, 0.975))
    rho = stats.spearmanr(a, values[known].mean(1)).statistic
    return {f"rho_{name}": rho, f"rho_{name}_low": low, f"rho_{name}_high": high}


def resampled(values: Array, generator: np.random.Generator) -> Array:
    """Means over images (filters, draws), each of another sample of the images."""
    images = values.shape[1]
    counts = generator.multinomial(images, np.full(images, 1 / images), size=DRAWS)
    found: Array = values @ counts.T / images
    return found
