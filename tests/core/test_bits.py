"""Packed bits come back as they were, and bytes that cannot be theirs are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunescope.core.bits import pack, unpack
from prunescope.core.errors import PrunescopeError


@given(rows=st.integers(0, 5), n=st.integers(0, 40), seed=st.integers(0, 99))
def test_bits_survive_packing(rows: int, n: int, seed: int) -> None:
    table = np.random.default_rng(seed).random((rows, n)) < 0.5
    packed = pack(table)
    assert (packed.dtype, packed.shape) == (np.uint8, (rows, -(-n // 8)))
    back = unpack(packed, n)
    assert back.dtype == np.bool_
    np.testing.assert_array_equal(back, table)


def test_bits_lie_highest_first() -> None:
    assert pack(np.arange(10)[None] == 8).tolist() == [[0, 128]]
    assert pack(np.arange(8)[None] == 7).tolist() == [[1]]


@pytest.mark.parametrize("table", [np.ones((2, 3)), np.ones(3, dtype=bool)])
def test_what_is_no_table_of_bits_is_refused(table: np.ndarray) -> None:
    with pytest.raises(PrunescopeError, match="must be bool"):
        pack(table)


@pytest.mark.parametrize(("n", "dtype"), [(8, np.uint8), (17, np.uint8), (10, np.int64)])
def test_bytes_of_another_length_are_refused(n: int, dtype: type) -> None:
    with pytest.raises(PrunescopeError, match=f"rows of {n} bits must be uint8"):
        unpack(np.zeros((1, 2), dtype=dtype), n)
