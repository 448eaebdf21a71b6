"""How alike two networks score concepts, over images."""

from __future__ import annotations

from typing import Any

import numpy as np

from prunescope.core.errors import PrunescopeError

Array = np.ndarray[Any, np.dtype[Any]]


def correlation(a: Array, b: Array, weights: Array | None = None) -> Array:
    """Pearson correlation over images of each concept's scores: (N, K) twice -> (K,), or (draws, K) with weights.

    Args:
        weights: (draws, N) counts of a bootstrap over images; the correlation of every resample, exactly.

    A constant score has no correlation: NaN.
    """
    if a.shape != b.shape or a.ndim != 2:
        raise PrunescopeError(f"concept scores must have equal shapes (images, concepts), got {a.shape}, {b.shape}")
    a = a.astype(np.float64) - a.mean(axis=0)
    b = b.astype(np.float64) - b.mean(axis=0)
    rows = np.ones((1, len(a))) if weights is None else weights
    rows = rows / rows.sum(axis=1, keepdims=True)
    mean_a, mean_b = rows @ a, rows @ b
    var_a, var_b = rows @ (a * a) - mean_a**2, rows @ (b * b) - mean_b**2
    scale = np.sqrt(np.maximum(var_a, 0) * np.maximum(var_b, 0))
    varies = scale > 1e-12
    found = np.where(varies, (rows @ (a * b) - mean_a * mean_b) / np.where(varies, scale, 1), np.nan)
    return found[0] if weights is None else found
