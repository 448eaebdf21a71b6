"""Drift: how far one network's records lie from another's, with intervals, and against the noise floor."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import derive
from prunescope.core.types import Estimate, Record
from prunescope.metrics.families import FAMILIES, Distance
from prunescope.metrics.statistics import Interval, Spread, bootstrap_mean, resamples, t_interval

Array = np.ndarray[Any, np.dtype[Any]]
Subset = Literal["all", "both_right"]
Verdict = Literal["within the floor", "beyond the floor", "undecided", "no floor"]


@dataclass(frozen=True)
class DriftRow:
    """One measure of one array of one probe, over all images or over those that both networks get right."""

    probe: str
    array: str
    distance: str
    subset: Subset
    title: str
    estimate: Estimate


def drift(
    reference: Mapping[str, Record],
    other: Mapping[str, Record],
    distances: Mapping[str, Mapping[str, str]],
    *,
    seed: int = 0,
    draws: int = 1000,
) -> list[DriftRow]:
    """Compare two networks' records, images aligned by their ids.

    Args:
        reference, other: {probe key: record}, of the dense network and of the one compared with it.
        distances: {probe key: {array: family}}, as probes declare them (`Probe.distances`).
        seed, draws: of the bootstrap over images (classes for class tables).

    Raises:
        PrunescopeError: the records have fewer than two images in common.
    """
    right = _both_right(reference, other)
    rows: list[DriftRow] = []
    for probe, arrays in distances.items():
        if probe not in reference or probe not in other:
            continue
        for array, family in arrays.items():
            if array in reference[probe].arrays and array in other[probe].arrays:
                for distance in FAMILIES[family]:
                    chosen = derive(seed, probe, array, distance.name)
                    rows += _rows(probe, array, distance, reference[probe], other[probe], right, chosen, draws)
    return rows


def _rows(
    probe: str, array: str, distance: Distance, a: Record, b: Record, right: set[str] | None, seed: int, draws: int
) -> Iterator[DriftRow]:
    def row(subset: Subset, found: Interval) -> DriftRow:
        estimate = Estimate(
            f"{probe}/{array}/{distance.name}", found.value, found.low, found.high, found.n,
            distance.unit, distance.higher_is_better, dropped=found.dropped,
        )  # fmt: skip
        return DriftRow(probe, array, distance.name, subset, distance.title, estimate)

    if distance.over == "class":
        values = distance.function(a.arrays[array], b.arrays[array])
        yield row("all", bootstrap_mean(values, seed=seed, draws=draws))
        return
    ids, rows_a, rows_b = _aligned(a, b, probe)
    x, y = a.arrays[array][rows_a], b.arrays[array][rows_b]
    keep = None if right is None else np.array([name in right for name in ids], dtype=bool)
    if distance.over == "concept":
        yield row("all", _over_concepts(distance, x, y, seed, draws))
        if keep is not None and keep.sum() > 1:
            yield row("both_right", _over_concepts(distance, x[keep], y[keep], seed, draws))
        return
    values = distance.function(x, y)
    yield row("all", bootstrap_mean(values, seed=seed, draws=draws))
    if keep is not None and distance.name != "agreement":  # both right is agreement
        yield row("both_right", bootstrap_mean(values[keep], seed=seed, draws=draws))


def _over_concepts(distance: Distance, x: Array, y: Array, seed: int, draws: int) -> Interval:
    """Mean over concepts; the interval is over resampled images, since it is they that vary."""
    values = distance.function(x, y)
    found = np.isfinite(values)
    if not found.any():
        return Interval(math.nan, math.nan, math.nan, 0, len(values))
    means = [
        np.nanmean(distance.function(x[:, found], y[:, found], block), axis=1)
        for block in resamples(len(x), min(draws, 300), seed)
    ]
    low, high = np.nanquantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(values[found].mean()), float(low), float(high), int(found.sum()), int((~found).sum()))


def _aligned(a: Record, b: Record, probe: str) -> tuple[list[str], Array, Array]:
    """Ids in common, in the reference's order, and their rows in both."""
    if a.ids is None or b.ids is None:
        raise PrunescopeError(f"records of probe {probe!r} have no image ids: they cannot be aligned")
    place = {name: i for i, name in enumerate(b.ids.tolist())}
    pairs = [(name, i, place[name]) for i, name in enumerate(a.ids.tolist()) if name in place]
    if len(pairs) < 2:
        raise PrunescopeError(f"records of probe {probe!r} have {len(pairs)} images in common: other data?")
    return [p[0] for p in pairs], np.array([p[1] for p in pairs]), np.array([p[2] for p in pairs])


def _both_right(reference: Mapping[str, Record], other: Mapping[str, Record]) -> set[str] | None:
    """Ids of the images that both networks classify correctly; None when predictions are missing."""
    sets = []
    for records in (reference, other):
        record = next((r for r in records.values() if {"image.predicted", "image.label"} <= set(r.arrays)), None)
        if record is None or record.ids is None:
            return None
        sets.append(set(record.ids[record.arrays["image.predicted"] == record.arrays["image.label"]].tolist()))
    return sets[0] & sets[1]


def noise_floor(values: Array) -> tuple[float, float] | None:
    """The range of the drift between dense networks that differ only in seed, over all their pairs.

    From k seeds come k(k-1)/2 pairs, which share networks and so are not independent: more seeds make a better floor,
    and with a single pair there is none.
    """
    found = values[np.isfinite(values)]
    return (float(found.min()), float(found.max())) if len(found) > 1 else None


def over_seeds(values: Array, *, floor: tuple[float, float] | None, spread: Spread | None = None) -> Estimate:
    """Mean over runs with Student's interval: the run is the unit of a claim.

    Args:
        spread: between runs, pooled over a recipe's rounds: two or three runs alone know little of it.
    """
    found = t_interval(values, spread)
    return Estimate("", found.value, found.low, found.high, found.n, floor=floor, dropped=found.dropped)


def verdict(estimate: Estimate, *, higher_is_better: bool) -> Verdict:
    """Whether a drift is more than other seeds explain.

    `within the floor`: the value is no worse than the floor's worse end. `beyond the floor`: value and the better end
    of its interval are both worse. `undecided`: the value is worse, but its interval reaches into the floor, or there
    is only one run.
    """
    if estimate.floor is None or not np.isfinite(estimate.value):
        return "no floor"
    sign = 1 if higher_is_better else -1
    worst = estimate.floor[0] if higher_is_better else estimate.floor[1]
    if sign * estimate.value >= sign * worst:
        return "within the floor"
    better_end = estimate.high if higher_is_better else estimate.low
    return "beyond the floor" if np.isfinite(better_end) and sign * better_end < sign * worst else "undecided"
