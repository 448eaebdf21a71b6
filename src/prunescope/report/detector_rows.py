"""What the probe `dissection` found in every checkpoint: a row per layer and category of concepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.types import Array, Record
from prunescope.report.probe_rows import keys_of, probe_rows
from prunescope.study.results import Results

#: What stands in `layer` and `category` for all of them.
ALL = "all"
_ROW = [
    "layer", "category", "units", "dead", "tied", "detectors", "beyond", "concepts", "concepts_beyond", "iou",
]  # fmt: skip


def detector_probes(found: Results) -> list[str]:
    """Keys of the probes that dissect."""
    return keys_of(found, "dissection")


def detector_rows(found: Results) -> pd.DataFrame:
    """A row per checkpoint, probe, layer and category, and for `all` of them: units, how many of them no image changes
    or have no threshold; detectors of such a concept, and those beyond chance; how many concepts these detect; mean
    overlap of the scored units with their best concept (NaN of none)."""
    return probe_rows(found, detector_probes(found), _ROW, lambda point, key: _rows(found.record(point, key)))


def detected(record: Record) -> set[str]:
    """The concepts that units detect beyond chance."""
    return {record.info["concepts"][i] for i in np.unique(record.arrays["unit.concept"][record.arrays["unit.beyond"]])}


def _rows(record: Record) -> Iterator[tuple[Any, ...]]:
    arrays, widths = record.arrays, record.info["layers"]
    layer = np.repeat(list(widths), list(widths.values()))
    categories = np.array([*record.info["categories"], ""])
    category = categories[arrays["unit.concept"]]  # "" for units that are not scored, whose concept is -1
    for name in (*widths, ALL):
        here = np.ones(len(layer), np.bool_) if name == ALL else layer == name
        for kind in (*dict.fromkeys(record.info["categories"]), ALL):
            of_kind = here & ((kind == ALL) | (category == kind))
            sure = of_kind & arrays["unit.beyond"]
            found = of_kind & arrays["unit.detector"]
            yield (
                name, kind, int(here.sum()), int(arrays["unit.dead"][here].sum()), int(arrays["unit.tied"][here].sum()),
                int(found.sum()), int(sure.sum()), _distinct(arrays, found), _distinct(arrays, sure),
                _mean(arrays["unit.iou"][of_kind]),
            )  # fmt: skip


def _distinct(arrays: Any, units: Array) -> int:
    return len(np.unique(arrays["unit.concept"][units]))


def _mean(values: Array) -> float:
    """Of scored units; NaN of none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
