"""How alike two networks score concepts, over images."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunescope.core.errors import PrunescopeError

Array = np.ndarray[Any, np.dtype[Any]]


def correlation(a: Array, b: Array, weights: Array | None = None) -> Array:
    """Pearson correlation over images of each concept's scores: (N, K) twice -> (K,), or (draws, K) with weights.

    Args:
        weights: (draws, N) counts of a bootstrap over images; the correlation of every resample, exactly, from
            weighted moments.

    A concept whose scores are constant, or NaN for some image, has no correlation: NaN.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise PrunescopeError(f"concept scores must have equal shapes (images, concepts), got {a.shape}, {b.shape}")
    a, b = _standardised(a), _standardised(b)
    rows = np.full((1, len(a)), 1.0) if weights is None else weights
    rows = rows / rows.sum(axis=1, keepdims=True)
    mean_a, mean_b = rows @ a, rows @ b
    var_a, var_b = rows @ (a * a) - mean_a**2, rows @ (b * b) - mean_b**2
    varies = (var_a > 1e-12) & (var_b > 1e-12)  # of columns whose variance is 1: a resample of equal images has none
    scale = np.sqrt(np.where(varies, var_a * var_b, 1.0))
    found = np.where(varies, (rows @ (a * b) - mean_a * mean_b) / scale, np.nan)
    return found[0] if weights is None else found


def _standardised(scores: Array) -> Array:
    """Columns with mean 0 and variance 1, so that products of moments lose no digits; constant columns become 0."""
    scores = scores.astype(np.float64)
    constant = scores.max(axis=0) == scores.min(axis=0)
    centred = scores - scores.mean(axis=0)
    return np.where(constant, 0.0, centred / np.where(constant, 1.0, centred.std(axis=0)))
