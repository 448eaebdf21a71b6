"""How alike two stacks of heat maps are, image by image.

Every function takes maps (N, h, w) >= 0 from two networks for the same images and returns (N,) floats. A blank map
(all zero, or NaN) on either side gives NaN: no evidence is not the same as opposite evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from scipy.ndimage import uniform_filter1d
from scipy.stats import rankdata

from prunescope.core.errors import PrunescopeError

Array = np.ndarray[Any, np.dtype[Any]]
Distance = Callable[[Array, Array], Array]


def _of_maps(function: Distance) -> Distance:
    """Checks shapes, sets blank pairs to NaN, scales the others to a maximum of 1."""

    @wraps(function)
    def wrapped(a: Array, b: Array) -> Array:
        if a.shape != b.shape or a.ndim != 3:
            raise PrunescopeError(
                f"maps must have equal shapes (images, h, w), got {a.shape} and {b.shape}: "
                "compare maps of the same layer and image size"
            )
        a, b = a.astype(np.float64), b.astype(np.float64)
        peaks = [maps.max(axis=(1, 2), initial=0) for maps in (a, b)]
        found = (peaks[0] > 0) & (peaks[1] > 0)  # NaN compares false
        result = np.full(len(a), np.nan)
        if found.any():
            scaled = [maps[found] / peak[found, None, None] for maps, peak in zip((a, b), peaks, strict=True)]
            result[found] = function(*scaled)
        return result

    return wrapped


def _correlation(a: Array, b: Array) -> Array:
    """Pearson over the last axis; NaN where either side is constant."""
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    varies = scale > 1e-12
    return np.where(varies, (a * b).sum(axis=1) / np.where(varies, scale, 1.0), np.nan)


@_of_maps
def pearson(a: Array, b: Array) -> Array:
    """Pearson correlation of the pixels, -1 to 1; NaN for a constant map."""
    return _correlation(a.reshape(len(a), -1), b.reshape(len(b), -1))


@_of_maps
def spearman(a: Array, b: Array) -> Array:
    """Rank correlation of the pixels, -1 to 1, ties by their mean rank; NaN for a constant map."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (a, b)]
    return _correlation(*ranks)


@_of_maps
def ssim(a: Array, b: Array) -> Array:
    """Structural similarity (Wang et al. 2004) of maps scaled to a maximum of 1; -1 to 1, 1 is equal.

    Uniform windows of 7 x 7 pixels, or of the largest odd side that fits a smaller map; only windows that lie wholly
    inside the map count. (A window of one pixel has no variance: there only the brightness is compared.)
    """
    size = min(7, *(side if side % 2 else side - 1 for side in a.shape[1:]))
    n = size * size
    unbiased = n / (n - 1) if n > 1 else 1.0

    def local_mean(maps: Array) -> Array:
        for axis in (1, 2):
            maps = uniform_filter1d(maps, size, axis=axis)
        margin = size // 2
        return maps[:, margin : maps.shape[1] - margin, margin : maps.shape[2] - margin]

    mean_a, mean_b = local_mean(a), local_mean(b)
    var_a = unbiased * (local_mean(a * a) - mean_a**2)
    var_b = unbiased * (local_mean(b * b) - mean_b**2)
    covariance = unbiased * (local_mean(a * b) - mean_a * mean_b)
    c1, c2 = 0.01**2, 0.03**2
    ratio = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    found: Array = ratio.mean(axis=(1, 2))
    return found


@_of_maps
def iou20(a: Array, b: Array) -> Array:
    """Overlap (intersection over union) of the 20 % of pixels with the largest values, 0 to 1.

    Exactly ceil(0.2 h w) pixels on each side; of equal values the first in reading order.
    """
    pixels = a.shape[1] * a.shape[2]
    count = -(-pixels // 5)
    tops = []
    for maps in (a, b):
        order = np.argsort(-maps.reshape(len(maps), -1), axis=1, kind="stable")[:, :count]
        top = np.zeros((len(maps), pixels), dtype=bool)
        np.put_along_axis(top, order, True, axis=1)
        tops.append(top)
    shared = (tops[0] & tops[1]).sum(axis=1)
    return shared / (2 * count - shared)


@_of_maps
def shift(a: Array, b: Array) -> Array:
    """Distance between the maps' centres of mass, in units of the map's diagonal, 0 to 1."""
    height, width = a.shape[1:]
    centres = []
    for maps in (a, b):
        mass = maps.sum(axis=(1, 2))
        y = (maps.sum(axis=2) @ (np.arange(height) + 0.5)) / mass
        x = (maps.sum(axis=1) @ (np.arange(width) + 0.5)) / mass
        centres.append(np.stack([y, x], axis=1))
    found: Array = np.linalg.norm(centres[0] - centres[1], axis=1) / np.hypot(height, width)
    return found
