"""What the probes of units and features found in every checkpoint, a row per layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.types import Array, Record
from prunescope.metrics.similarity import cka
from prunescope.metrics.unit_scores import paired_change, row_means
from prunescope.report.places import dense_of, dense_points
from prunescope.report.probe_rows import keys_of, probe_rows
from prunescope.study.plan import Point
from prunescope.study.results import Results

_MIS = ["layer", "kind", "units", "constant", "tied", "accuracy", "mis", "second", "paired_change"]
_SELECTIVITY = ["layer", "units", "dead", "from_means", "from_best"]
Rows = Iterator[tuple[Any, ...]]


def mis_layers(found: Results) -> pd.DataFrame:
    """A row per checkpoint, probe `mis` and layer: its kind, units, how many of them are constant and how many tied;
    of the others the mean share of right tasks, mean MIS by both judges; and the mean change of MIS over the units that
    have a score here and in the dense network of the seed (NaN where the network began from other weights)."""
    return _table(found, "mis", _MIS, _mis)


def selectivity_layers(found: Results) -> pd.DataFrame:
    """A row per checkpoint, probe `selectivity` and layer: units, how many are dead, mean selectivity of the others by
    both definitions."""
    return _table(found, "selectivity", _SELECTIVITY, _selectivity)


def similarity_layers(found: Results) -> pd.DataFrame:
    """A row per checkpoint, probe `similarity` and layer: CKA with the dense network of the seed."""
    return _table(found, "similarity", ["layer", "cka"], _similarity)


def similarity_floor(found: Results, key: str) -> tuple[list[str], Array]:
    """(layers, CKA of every pair of dense networks (pairs, layers))."""
    records = [found.record(point, key) for point in dense_points(found)]
    layers = list(records[0].info["layers"]) if records else []
    return layers, np.array([_cka(a, b) for a, b in combinations(records, 2)]).reshape(-1, len(layers))


def rows_of_layers(record: Record) -> Iterator[tuple[str, slice]]:
    """(layer, where its units are) in the record of a probe with arrays `unit.*`."""
    start = 0
    for name, count in record.info["layers"].items():
        yield str(name), slice(start, start + count)
        start += count


def _table(
    found: Results, probe: str, columns: list[str], of: Callable[[Record, Record | None, Point], Rows]
) -> pd.DataFrame:
    """Rows of each record, made beside the record of the dense network of its seed."""

    def rows(point: Point, key: str) -> Rows:
        dense = None if point.role == "dense" else dense_of(found, point.seed)
        return of(found.record(point, key), None if dense is None else found.record(dense, key), point)

    return probe_rows(found, keys_of(found, probe), columns, rows)


def _mis(record: Record, dense: Record | None, point: Point) -> Rows:
    arrays = record.arrays
    changes = np.full(len(record.info["layers"]), np.nan)
    if dense is not None and point.role != "reinit":
        changes = paired_change(dense.arrays["layer.mis"], arrays["layer.mis"])
    for row, (name, part) in enumerate(rows_of_layers(record)):
        second = arrays["unit.second"][part] if "unit.second" in arrays else np.full(part.stop - part.start, np.nan)
        constant, tied = (int(arrays[f"unit.{which}"][part].sum()) for which in ("dead", "tied"))
        means = row_means(np.stack([arrays["unit.accuracy"][part], arrays["unit.mis"][part], second]))
        yield (
            name, record.info["kinds"][name], part.stop - part.start, constant, tied, *means.tolist(),
            float(changes[row]),
        )  # fmt: skip


def _selectivity(record: Record, _dense: Record | None, _point: Point) -> Rows:
    arrays = record.arrays
    for name, part in rows_of_layers(record):
        means = row_means(np.stack([arrays["unit.selectivity"][part], arrays["unit.best_selectivity"][part]]))
        yield name, part.stop - part.start, int(arrays["unit.dead"][part].sum()), *means.tolist()


def _similarity(record: Record, dense: Record | None, _point: Point) -> Rows:
    if dense is not None:
        yield from zip(map(str, record.info["layers"]), _cka(dense, record).tolist(), strict=True)


def _cka(a: Record, b: Record) -> Array:
    """(layers,); the probe draws the same images for every network."""
    return cka(a.arrays["image.features"], b.arrays["image.features"])
