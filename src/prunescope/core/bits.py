"""Tables of yes and no, eight to a byte: a record keeps for every unit and image whether the decision was right."""

from __future__ import annotations

import numpy as np

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array


def pack(table: Array) -> Array:
    """Booleans (rows, n) -> bytes (rows, ceil(n / 8)), the first of eight in the highest bit; n is not in them.

    >>> pack(np.array([[True, False, True]])).tolist()
    [[160]]
    """
    if table.dtype != np.bool_ or table.ndim != 2:
        raise PrunescopeError(f"a table of bits must be bool (rows, n), got {table.dtype} {table.shape}")
    return np.packbits(table, axis=1)


def unpack(packed: Array, n: int) -> Array:
    """The booleans (rows, n) that `pack` was given.

    Raises:
        PrunescopeError: rows of these bytes do not hold n bits.
    """
    if packed.dtype != np.uint8 or packed.ndim != 2 or packed.shape[1] != -(-n // 8):
        raise PrunescopeError(
            f"packed rows of {n} bits must be uint8 (rows, {-(-n // 8)}), got {packed.dtype} {packed.shape}"
        )
    return np.unpackbits(packed, axis=1, count=n).view(np.bool_)
