"""Drift: how far one network's records lie from another's, with intervals over images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.seeds import derive
from prunescope.core.types import Estimate, Record
from prunescope.metrics.families import FAMILIES, Distance
from prunescope.metrics.statistics import Interval, bootstrap_mean, resamples
from prunescope.study.alignment import common_images

Array = np.ndarray[Any, np.dtype[Any]]
Subset = Literal["all", "both_right"]

#: Resamples of a mean over columns: each is a whole table of correlations.
_COLUMN_DRAWS = 300


@dataclass(frozen=True)
class DriftRow:
    """One measure of one array of one probe, over all images or over those that both networks get right."""

    probe: str
    array: str
    distance: str
    subset: Subset
    title: str
    estimate: Estimate

    @property
    def measure(self) -> tuple[str, str, str, Subset]:
        """What names the quantity: rows of different networks that agree in this can be held against each other."""
        return self.probe, self.array, self.distance, self.subset


def drift(
    reference: Mapping[str, Record],
    other: Mapping[str, Record],
    distances: Mapping[str, Mapping[str, str]],
    *,
    same_start: bool = False,
    seed: int = 0,
    draws: int = 1000,
) -> list[DriftRow]:
    """Compare two networks' records, images aligned by their ids.

    Over images (heat maps, decisions) and columns (concepts' scores) there is a row for all images and, where
    predictions are there, one for those that both networks classify correctly; tables over classes or layers have one
    row. Images without a value (blank maps) or that only one network was shown, classes without a ranking, and concepts
    that cannot be scored in both networks are not averaged in but counted in `Estimate.dropped`.

    Args:
        reference, other: {probe key: record}, of the dense network and of the one compared with it.
        distances: {probe key: {array: family}}, as probes declare them (`Probe.distances`). Arrays that a record does
            not have are left out.
        same_start: both networks began from the same initial weights, as a pruned network and the dense one that it
            comes from. Only then are measures there that compare unit i with unit i (`Distance.unit_by_unit`).
        seed, draws: of the bootstrap over images (over classes or layers for their tables).

    Raises:
        PrunescopeError: fewer than two images in common; arrays of different shapes or concepts; unknown family.
    """
    right = _both_right(reference, other)
    rows: list[DriftRow] = []
    for probe, arrays in distances.items():
        if probe not in reference or probe not in other:
            continue
        a, b = reference[probe], other[probe]
        for array, family in arrays.items():
            if family not in FAMILIES:
                raise choices("family of distances", family, FAMILIES, f"{probe}/{array}")
            if array in a.arrays and array in b.arrays:
                pair = _pair(a, b, array, right, f"{probe}/{array}")
                for distance in FAMILIES[family]:
                    if distance.unit_by_unit and not same_start:
                        continue
                    bootstrap = _Bootstrap(derive(seed, probe, array, distance.name), draws)
                    rows += [
                        DriftRow(probe, array, distance.name, subset, distance.title, _estimate(pair, distance, found))
                        for subset, found in _compare(pair, distance, bootstrap)
                    ]
    return rows


@dataclass(frozen=True, eq=False)
class _Pair:
    """One array of both networks: rows aligned if they are images; `right` then marks those both get right."""

    name: str
    a: Array
    b: Array
    right: Array | None
    unmatched: int
    concepts: Array | None


@dataclass(frozen=True)
class _Bootstrap:
    seed: int
    draws: int

    def mean(self, values: Array) -> Interval:
        return bootstrap_mean(values, seed=self.seed, draws=self.draws)


def _pair(a: Record, b: Record, array: str, right: set[str] | None, name: str) -> _Pair:
    known = [list(record.info["concept_names"]) for record in (a, b) if "concept_names" in record.info]
    if len(known) == 2 and known[0] != known[1]:
        raise PrunescopeError(f"{name}: the records speak of different concepts: {known[0]} and {known[1]}")
    x, y = a.arrays[array], b.arrays[array]
    if not array.startswith("image."):
        return _Pair(name, x, y, None, 0, None)
    ids, (rows_a, rows_b) = common_images([a, b], name)
    keep = None if right is None else np.array([image in right for image in ids.tolist()], dtype=bool)
    good = [np.asarray(r.arrays["concept.good"], dtype=bool) for r in (a, b) if "concept.good" in r.arrays]
    unmatched = len(x) + len(y) - 2 * len(ids)
    return _Pair(name, x[rows_a], y[rows_b], keep, unmatched, np.logical_and.reduce(good) if good else None)


def _compare(pair: _Pair, distance: Distance, bootstrap: _Bootstrap) -> Iterator[tuple[Subset, Interval]]:
    try:
        if distance.over == "column":
            yield "all", _over_columns(pair, distance, bootstrap, slice(None))
            if pair.right is not None:
                yield "both_right", _over_columns(pair, distance, bootstrap, pair.right)
            return
        values = distance.function(pair.a, pair.b)
    except PrunescopeError as error:
        raise PrunescopeError(f"{pair.name}: {error}") from None
    found = bootstrap.mean(values)
    yield "all", replace(found, dropped=found.dropped + pair.unmatched)
    if pair.right is not None and distance.name != "agreement":  # networks that are both right agree
        yield "both_right", bootstrap.mean(values[pair.right])


def _over_columns(pair: _Pair, distance: Distance, bootstrap: _Bootstrap, images: Array | slice) -> Interval:
    """Mean over columns (concepts, layers); the interval is over resampled images, since it is they that vary.

    Concepts that the quality gate of either network rejects (`concept.good`) are dropped.
    """
    x, y = pair.a[images], pair.b[images]
    values = distance.function(x, y) if len(x) > 1 else np.full(x.shape[1], np.nan)
    found = np.isfinite(values) if pair.concepts is None else np.isfinite(values) & pair.concepts
    n, dropped = int(found.sum()), int((~found).sum())
    if not n:
        return Interval(math.nan, math.nan, math.nan, 0, dropped)
    blocks = resamples(len(x), min(bootstrap.draws, _COLUMN_DRAWS), bootstrap.seed)
    drawn = np.concatenate([distance.function(x[:, found], y[:, found], block) for block in blocks])
    known = np.isfinite(drawn)  # in a resample a score may be constant, or a rare set empty
    some = known.any(axis=1)
    means = np.where(known, drawn, 0).sum(axis=1)[some] / known.sum(axis=1)[some]
    low, high = np.quantile(means, [0.025, 0.975]) if len(means) else (math.nan, math.nan)
    return Interval(float(values[found].mean()), float(low), float(high), n, dropped)


def _estimate(pair: _Pair, distance: Distance, found: Interval) -> Estimate:
    return Estimate(
        f"{pair.name}/{distance.name}", found.value, found.low, found.high, found.n,
        distance.unit, distance.higher_is_better, dropped=found.dropped,
    )  # fmt: skip


def _both_right(reference: Mapping[str, Record], other: Mapping[str, Record]) -> set[str] | None:
    """Ids of the images that both networks classify correctly; None when predictions are missing."""
    sets = []
    for records in (reference, other):
        record = next((r for r in records.values() if {"image.predicted", "image.label"} <= set(r.arrays)), None)
        if record is None or record.ids is None:
            return None
        sets.append(set(record.ids[record.arrays["image.predicted"] == record.arrays["image.label"]].tolist()))
    return sets[0] & sets[1]
