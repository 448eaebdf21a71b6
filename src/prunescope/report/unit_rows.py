"""What the probe `car` found in every checkpoint: a row per layer, and a row per class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.types import Array, Record
from prunescope.report.probe_rows import keys_of, probe_rows
from prunescope.study.results import Results

_LAYER = ["layer", "units", "dead", "mattering", "harmful", "car", "harm"]
_CLASS = ["class", "images", "car"]


def unit_probes(found: Results) -> list[str]:
    """Keys of the probes that take out units."""
    return keys_of(found, "car")


def unit_layers(found: Results) -> pd.DataFrame:
    """A row per checkpoint, probe and layer: units, how many of them are dead, matter for sure and do harm; mean CAR of
    those that live (NaN of none); the layer's share of all decisions that turn wrong."""
    return probe_rows(found, unit_probes(found), _LAYER, lambda point, key: _layers(found.record(point, key)))


def unit_classes(found: Results) -> pd.DataFrame:
    """A row per checkpoint, probe and class: its images and its class CAR, mean over the living units of all layers."""
    return probe_rows(found, unit_probes(found), _CLASS, lambda point, key: _classes(found.record(point, key)))


def _layers(record: Record) -> Iterator[tuple[Any, ...]]:
    arrays, start = record.arrays, 0
    for row, (name, count) in enumerate(record.info["layers"].items()):
        part = slice(start, start + count)
        start += count
        living = ~arrays["unit.dead"][part]
        cars = arrays["unit.car"][part][living]
        sure = (arrays["unit.p_holm"][part] < 0.05)[living]
        yield (
            name, count, count - int(living.sum()), int(sure.sum()), int((cars < 0).sum()), _mean(cars),
            float(arrays["layer.harm"][row]),
        )  # fmt: skip


def _classes(record: Record) -> Iterator[tuple[Any, ...]]:
    arrays = record.arrays
    net = (arrays["unit.losses"] - arrays["unit.gains"])[~arrays["unit.dead"]]
    for k, name in enumerate(record.info["classes"]):
        count = int(arrays["class.count"][k])
        yield str(name), count, _mean(net[:, k] / count) if count else np.nan


def _mean(values: Array) -> float:
    """NaN of none."""
    return float(values.mean()) if len(values) else float("nan")
