"""What probes found in every checkpoint, as tables: where it stands in the study, then the probe's own columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import pandas as pd

from prunescope.study.plan import Point
from prunescope.study.results import Results

_PLACE = ["role", "recipe", "seed", "round", "density", "checkpoint"]


def keys_of(found: Results, *names: str) -> list[str]:
    """Keys of the study's probes of these names."""
    return [key for key, probe in found.study.probes.items() if probe.name in names]


def probe_rows(
    found: Results,
    keys: Collection[str],
    columns: Sequence[str],
    of: Callable[[Point, str], Iterable[tuple[Any, ...]]],
) -> pd.DataFrame:
    """Rows of all checkpoints: role, recipe, seed, round, density, checkpoint, probe, then `columns`.

    Args:
        of: a checkpoint and a probe's key to the values of `columns`, a tuple a row.
    """
    rows = [
        {**{name: getattr(point, name) for name in _PLACE}, "probe": key, **dict(zip(columns, values, strict=True))}
        for point in found.points
        for key in keys
        for values in of(point, key)
    ]
    return pd.DataFrame(rows, columns=[*_PLACE, "probe", *columns])
