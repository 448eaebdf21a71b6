"""The values that travel between layers: `Record` (what a probe measured) and `Estimate` (one drift number)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunescope.core.errors import PrunescopeError

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Record:
    """What one probe measured on one checkpoint. Plain numpy, read-only, without a link to what made it.

    Attributes:
        probe: registered name of the probe.
        metrics: scalars by name. NaN means "could not be measured" and is never averaged in.
        arrays: arrays by name. By convention the first axis is images (aligned with `ids`) when the name
            starts with `image.`, classes when with `class.`, concepts when with `concept.`; other names are free.
        ids: image ids (N,), strings, aligned with every `image.*` array; None when the probe has none.
        info: JSON-able facts that a reader needs: names of classes and concepts, layer, options, warnings.
    """

    probe: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    arrays: Mapping[str, Array] = field(default_factory=dict)
    ids: Array | None = None
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            if name.startswith("image.") and (self.ids is None or len(array) != len(self.ids)):
                n = None if self.ids is None else len(self.ids)
                raise PrunescopeError(
                    f"record of probe {self.probe!r}: array {name!r} has {len(array)} rows, but there are {n} image ids"
                )
        arrays = {name: _read_only(array) for name, array in self.arrays.items()}
        object.__setattr__(self, "arrays", arrays)
        object.__setattr__(self, "metrics", {k: float(v) for k, v in self.metrics.items()})
        if self.ids is not None:
            object.__setattr__(self, "ids", _read_only(np.asarray(self.ids, dtype=np.str_)))


def _read_only(array: Array) -> Array:
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class Estimate:
    """One number with its uncertainty: every drift is one, and the report needs no more to draw it.

    Attributes:
        metric: name, for example `gradcam.reference/pearson`.
        value: point estimate; NaN when there was nothing to measure.
        low, high: bounds of the 95 % interval (bootstrap over items unless said otherwise).
        n: items (images, classes or concepts) that went in; those left out are counted in `dropped`.
        unit: `correlation`, `share`, `pixels` ... ; free text for axis labels.
        higher_is_better: True when larger means "more alike"; None when neither.
        floor: (low, high) of the same quantity between dense networks that differ only in seed; None when unknown.
        dropped: items without a value (blank maps, empty classes), never averaged in.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    unit: str = ""
    higher_is_better: bool | None = True
    floor: tuple[float, float] | None = None
    dropped: int = 0
