"""Whole numbers that are ordered as a value and, where values are equal, a lot: one search for the largest does both.

The upper 32 bits hold the value, the lower ones the lot.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The largest lot.
LOTS = 0xFFFFFFFF


def rank_keys(values: Tensor, lots: Tensor) -> Tensor:
    """int64 keys: larger for larger float32 values, and of equal ones for smaller lots.

    Args:
        lots: int64, 0 to `LOTS`.
    """
    bits = (values + 0.0).view(torch.int32)  # -0 becomes 0, to which it is equal
    rising = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # the bits of negative numbers fall as the numbers rise
    return (rising.long() << 32) + (LOTS - lots)


def values_of(keys: Tensor) -> Tensor:
    """The float32 values in such keys."""
    rising = (keys >> 32).int()
    return (rising ^ ((rising >> 31) & 0x7FFFFFFF)).view(torch.float32)


def lots_of(rows: Tensor, seed: int) -> Tensor:
    """A random number of 32 bits for every image (the rows' values) and channel (the column), the same in whatever
    batch; of one channel no two images have the same.

    Every step can be undone, so that different images stay different: an odd factor, then the mixing of Wellons'
    lowbias32.
    """
    mixed = (rows * 0x9E3779B1 + torch.arange(rows.shape[1], device=rows.device) * 0x85EBCA77 + seed) & LOTS
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        mixed = ((mixed ^ (mixed >> shift)) * factor) & LOTS
    return mixed ^ (mixed >> 16)
