"""Tables of `squeezenet_filters.py reasons`: what a filter's removal does to heat maps and concept scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from prunescope.core.types import Array
from prunescope.probes.car import UnitTable

#: Of a filter's agreement of heat maps that is lost: the reasons change from here on.
REASONS = 0.05
#: A filter without a significant CAR counts as spared where the interval of its CAR ends below this.
SPARED = 0.05
#: Resamples of images and filters.
DRAWS = 2000


def changed(table: UnitTable) -> Array:
    """bool (filters, images): another decision without the filter."""
    found: Array = table.ablation.predicted.numpy() != table.ablation.dense.numpy()
    return found


def maps_lost(table: UnitTable, labels: Array, z: Mapping[str, Array]) -> Array:
    """What each filter of the sample costs of each heat map's agreement (filters, images); NaN where the decision, and
    with it what the map explains, changes, or where CAR was not measured.
    """
    row = {unit: number for number, unit in enumerate(table.units)}
    column = {label: number for number, label in enumerate(labels.tolist())}  # one image per class
    units = [row[str(layer), int(channel)] for layer, channel in zip(z["layer"], z["channel"], strict=True)]
    at = np.array([column.get(label, -1) for label in z["labels"].tolist()])
    stays = ~changed(table)[np.ix_(units, at)] & (at >= 0)
    lost: Array = np.where(stays, 1 - z["spearman"], np.nan)
    return lost


def reasons_of(frame: pd.DataFrame, lost: Array, z: Mapping[str, Array]) -> pd.DataFrame:
    """A row per filter of the sample: CAR beside what is lost of the agreement of heat maps and of concept scores.

    Heat maps: over the images whose decision stays without the filter, mean and standard error.
    """
    counts = np.isfinite(lost).sum(1)
    mean = np.nansum(lost, axis=1) / np.where(counts > 0, counts, np.nan)
    squares = np.nansum((lost - mean[:, None]) ** 2, axis=1)
    se = np.sqrt(squares / np.where(counts > 1, (counts - 1) * counts, np.nan))
    found = pd.DataFrame({
        "layer": z["layer"], "channel": z["channel"], "images": counts, "maps_lost": mean, "low_maps": mean - 1.96 * se,
        "high_maps": mean + 1.96 * se, "turned_blank": (z["blank"] & ~z["dense_blank"]).sum(1),
        "concepts_lost": 1 - np.nanmean(z["concepts"], axis=1),
        "most_lost_concept": 1 - np.nanmin(z["concepts"], axis=1),
    })  # fmt: skip
    columns = ["layer", "channel", "car", "low", "high", "p", "mean_drop", "changed"]
    found = frame[columns].merge(found, on=["layer", "channel"])
    unimportant = (found["p"] >= 0.05) & (found["high"] < SPARED)
    return found.assign(
        spared_for_accuracy=unimportant.astype(int), needed_for_maps=(found["low_maps"] > REASONS).astype(int)
    ).round(5)


def kinds_of(lost: Array, kind: Array) -> pd.DataFrame:
    """A row per kind of images: what a filter costs their heat maps (median over filters of the mean over images), how
    much less or more than those of the other kinds, and for how many filters it is more.

    Intervals: 95 %, images resampled within their kinds and filters resampled.

    Args:
        lost: (filters, images), NaN where nothing was measured.
        kind: (images,) names.
    """
    generator = np.random.default_rng(0)
    found = []
    for name in dict.fromkeys(sorted(kind)):
        ours, rest = lost[:, kind == name], lost[:, kind != name]
        draws = []
        for _ in range(DRAWS):
            filters = generator.integers(0, len(lost), len(lost))
            pair = [part[filters][:, generator.integers(0, part.shape[1], part.shape[1])] for part in (ours, rest)]
            draws.append([_typical(part) for part in pair])
        drawn = np.array(draws)
        low, high = np.quantile(drawn[:, 0], (0.025, 0.975))
        low_more, high_more = np.quantile(drawn[:, 0] - drawn[:, 1], (0.025, 0.975))
        found.append({
            "images": name, "count": ours.shape[1], "maps_lost": _typical(ours), "low": low, "high": high,
            "more_than_rest": _typical(ours) - _typical(rest), "low_more": low_more, "high_more": high_more,
            "filters": len(lost), "filters_more": int((np.nanmean(ours, 1) > np.nanmean(rest, 1)).sum()),
        })  # fmt: skip
    return pd.DataFrame(found).round(5)


def _typical(lost: Array) -> float:
    """Median over filters of the mean over images."""
    return float(np.nanmedian(np.nanmean(lost, axis=1)))
