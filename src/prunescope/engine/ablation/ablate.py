"""Predictions of a network without each of its units, for every image as a full forward pass would give them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Precision = Literal["32", "bf16"]

#: Differences between logits that may be rounding, as a share of the largest logit: such predictions are made anew.
_ROUNDING = 1e-4
#: Bytes of the largest value of one run of worlds: what fits into a cache is computed faster.
_TILE = 8 * 2**20
#: Worlds per layer on which the error of low precision is measured, and by how much its largest is exceeded.
_SAMPLE, _SAFETY = 256, 3.0


@dataclass(frozen=True, eq=False)
class Ablation:
    """What a network says without each of its units.

    Attributes:
        layers: {layer: its channels that were taken out, one by one}, in the order of the rows.
        predicted: int16 (units, images).
        dense: int16 (images,) with all units.
        drop: float64 (units, classes): summed over the images of a class, by how much the logarithm of its
            probability falls (with `bf16`, as exact as that is).
        redone: how many predictions were within rounding of a tie and were made by a full forward pass.
        screened: how many predictions of `bf16` were made again in float32.
        tolerance: {layer: gap between the two largest logits below which `bf16` was not trusted}.
    """

    layers: Mapping[str, Tensor]
    predicted: Tensor
    dense: Tensor
    drop: Tensor
    redone: int = 0
    screened: int = 0
    tolerance: Mapping[str, float] | None = None
