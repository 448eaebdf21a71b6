from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.medians import median_interval


def ranks_by_hand(n: int) -> int:
    """The largest l for which P(Binomial(n, 1/2) < l) <= 2.5 %, from binomial coefficients."""
    tail, rank = 0.0, 0
    while tail + math.comb(n, rank) / 2**n <= 0.025:
        tail += math.comb(n, rank) / 2**n
        rank += 1
    return rank


@pytest.mark.parametrize("n", [6, 7, 10, 15, 30, 31, 101])
def test_bounds_are_the_order_statistics_of_the_binomial(n: int) -> None:
    found = median_interval(np.arange(n, 0.0, -1))
    rank = ranks_by_hand(n)
    assert (found.low, found.high) == (rank, n + 1 - rank)
    assert (found.value, found.n) == ((n + 1) / 2, n)


def test_it_covers_the_median_of_a_skewed_distribution() -> None:
    drawn = np.random.default_rng(0).exponential(size=(2000, 20))
    inside = [found.low <= math.log(2) <= found.high for found in map(median_interval, drawn)]
    assert 0.95 <= np.mean(inside) <= 0.975  # P(6 <= Binomial(20, 1/2) <= 14) = 95.9 %


def test_few_values_have_no_interval() -> None:
    found = median_interval(np.arange(5.0))
    assert found.value == 2
    assert math.isnan(found.low)
    assert math.isnan(found.high)


@given(arrays(np.float64, st.integers(6, 60), elements=st.floats(-1e9, 1e9)))
def test_bounds_enclose_the_median_and_order_does_not_matter(values: np.ndarray) -> None:
    found = median_interval(values)
    assert values.min() <= found.low <= found.value <= found.high <= values.max()
    assert median_interval(values[::-1]) == found


@pytest.mark.parametrize("values", [[], [1.0, np.nan]])
def test_what_has_no_median_is_refused(values: list[float]) -> None:
    with pytest.raises(PrunescopeError, match="finite values"):
        median_interval(np.array(values))
