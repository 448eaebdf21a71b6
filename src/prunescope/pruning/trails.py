"""What orders of removal leave behind, as values and as tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array
from prunescope.metrics.enrichment import enrichment


@dataclass(frozen=True, eq=False)
class Trail:
    """One layer, taken apart by one method.

    Attributes:
        layer, method, seed: whose.
        units: channels of the layer.
        order: channels that go (n,), first first; the last of the layer stays.
        removed: numbers removed at which accuracy was measured (k,), rising, 0 first.
        right: bool (k, images of the report split): right by then, not fine-tuned?
        tuned: {number removed: bool (images,)}, of a copy that was fine-tuned by then.
        diversity: share of the layer's kinds of channels that are left at `removed` (k,), 1 to 0; NaN: not known.
    """

    layer: str
    method: str
    seed: int
    units: int
    order: Array
    removed: Array
    right: Array
    tuned: Mapping[int, Array]
    diversity: Array

    def rightly(self, removed: int, *, tuned: bool = False) -> Array:
        """Bool (images,): right after so many removals? For pairs of methods: see `metrics.paired`.

        Raises:
            PrunescopeError: it was not measured there.
        """
        known = dict(self.tuned) if tuned else dict(zip(self.removed.tolist(), self.right, strict=True))
        if removed not in known:
            where = f"{self.method} in {self.layer}"
            raise PrunescopeError(f"{where} was measured after {sorted(known)} removals, not after {removed}")
        return known[removed]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Trails, and their tables (columns of `orders.csv`, `curves.csv` and `enrichment.csv`)."""

    trails: tuple[Trail, ...]

    def orders(self) -> pd.DataFrame:
        """layer, method, seed, place (0: removed first), channel."""
        return pd.DataFrame(
            [(t.layer, t.method, t.seed, place, int(channel)) for t in self.trails for place, channel in
             enumerate(t.order)], columns=["layer", "method", "seed", "place", "channel"],
        )  # fmt: skip

    def curves(self) -> pd.DataFrame:
        """A row per measurement: layer, method, seed, fine_tuned (0 or 1), removed, share_removed, accuracy (report
        split), images, diversity (of the network that was not fine-tuned; empty where it was)."""
        return pd.DataFrame([row for trail in self.trails for row in _curve(trail)])

    def enrichment(self, kinds: Mapping[str, Array], first: Sequence[int] = (10, 20)) -> pd.DataFrame:
        """How many of the first k that go are of a kind, for k in `first` and half of the layer: layer, method, seed,
        first (k), colour_selective, of (k), base (such channels in the layer), units, p (hypergeometric, upper tail).

        Args:
            kinds: {layer: bool (channels,)}: which are of the kind, colour-selective (`LayerView.colour_selective`).
        """
        trails = [trail for trail in self.trails if trail.layer in kinds]
        return pd.DataFrame([row for trail in trails for row in _enriched(trail, kinds[trail.layer], first)])


def _curve(trail: Trail) -> list[dict[str, Any]]:
    def row(tuned: int, removed: int, right: Array, diversity: float) -> dict[str, Any]:
        return {
            "layer": trail.layer, "method": trail.method, "seed": trail.seed, "fine_tuned": tuned, "removed": removed,
            "share_removed": round(removed / trail.units, 6), "accuracy": round(float(right.mean()), 6),
            "images": len(right), "diversity": round(diversity, 6),
        }  # fmt: skip

    plain = zip(trail.removed.tolist(), trail.right, trail.diversity.tolist(), strict=True)
    return [row(0, *item) for item in plain] + [row(1, n, right, math.nan) for n, right in trail.tuned.items()]


def _enriched(trail: Trail, kind: Array, first: Sequence[int]) -> list[dict[str, Any]]:
    gone = set(trail.order.tolist())
    every = np.r_[trail.order, [channel for channel in range(trail.units) if channel not in gone]].astype(np.int64)
    found = enrichment(kind[every])
    drawn = [k for k in dict.fromkeys([*first, trail.units // 2]) if 0 < k < trail.units]
    return [
        {"layer": trail.layer, "method": trail.method, "seed": trail.seed, "first": k,
         "colour_selective": int(found.hits[k - 1]), "of": k, "base": int(kind.sum()), "units": trail.units,
         "p": float(found.p[k - 1])} for k in drawn
    ]  # fmt: skip
