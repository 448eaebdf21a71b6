from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.proportions import share_interval


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_it_is_scipys(n: int, share: float, level: float) -> None:
    hits = round(share * n)
    found = share_interval(hits, n, level=level)
    expected = stats.binomtest(hits, n).proportion_ci(level, method="wilson")
    assert (found.value, found.n) == (hits / n, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(("hits", "n"), [(1, 0), (0, 0), (-1, 3), (4, 3)])
def test_counts_that_cannot_be_are_refused(hits: int, n: int) -> None:
    with pytest.raises(PrunescopeError, match="0 <= hits <= n"):
        share_interval(hits, n)
