"""How a share that every image has (of heat on the object, of hits) differs between two networks."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def difference(a: Array, b: Array) -> Array:
    """The second network's share less the first's, (N,), -1 to 1; NaN where either has none.

    >>> difference(np.array([0.25, np.nan]), np.array([0.75, 1.0])).tolist()
    [0.5, nan]
    """
    found: Array = b.astype(np.float64) - a.astype(np.float64)
    return found
