"""Overlaps, p-values and concepts of units beside loops and closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.dissection import overlap, p_values, same, spread, still

NAN = np.nan


def concepts(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    table = random.integers(0, 4, (5, 12)).astype(float)
    table[random.random((5, 12)) < 0.4] = NAN
    table[4] = NAN
    return table


def test_overlap_is_that_of_sets_of_pixels() -> None:
    random = np.random.default_rng(0)
    units, shown = random.random((3, 200)) < 0.2, random.random((4, 200)) < 0.3
    shown[2] = False
    found = overlap((units[:, None] & shown).sum(2), units.sum(1), shown.sum(1))
    for u in range(3):
        for k in range(4):
            a, b = set(np.flatnonzero(units[u])), set(np.flatnonzero(shown[k]))
            assert found[u, k] == pytest.approx(len(a & b) / len(a | b)) if b else np.isnan(found[u, k])


def test_p_counts_the_own_order() -> None:
    best, chance = np.array([0.5, 0.1, 0.3, NAN]), np.array([[0.1, 0.2], [0.1, 0.0], [0.4, 0.3], [NAN, NAN]])
    np.testing.assert_allclose(p_values(best, chance), [1 / 3, 2 / 3, 1, NAN])
    with pytest.raises(PrunescopeError, match=r"overlaps by chance \(4, draws\), got \(3, 2\)"):
        p_values(best, chance[:3])


@pytest.mark.parametrize("seed", range(5))
def test_concepts_beside_loops(seed: int) -> None:
    a, b = concepts(seed), concepts(seed + 100)
    for row in range(5):
        mine, theirs = a[row][np.isfinite(a[row])], b[row][np.isfinite(b[row])]
        if not len(mine) or not len(theirs):
            assert np.isnan(spread(a, b)[row])
            assert np.isnan(same(a, b)[row])
            continue
        apart = sum(abs((mine == k).mean() - (theirs == k).mean()) for k in range(4)) / 2
        assert spread(a, b)[row] == pytest.approx(apart)
        pairs = [(x, y) for x, y in zip(a[row], b[row], strict=True) if not np.isnan(x)]
        assert still(a, b)[row] == pytest.approx(np.mean([x == y for x, y in pairs]))
        both = [(x, y) for x, y in pairs if not np.isnan(y)]
        assert same(a, b)[row] == pytest.approx(np.mean([x == y for x, y in both]))


def test_a_network_is_like_itself_and_the_order_of_units_only_matters_unit_by_unit() -> None:
    table = concepts(0)
    turned = table[:, ::-1]
    np.testing.assert_array_equal(spread(table, table)[:4], 0)
    np.testing.assert_array_equal(spread(table, turned)[:4], 0)
    np.testing.assert_array_equal(still(table, table)[:4], 1)
    assert (still(table, turned)[:4] < 1).all()
    gone = np.full_like(table, NAN)
    np.testing.assert_array_equal(still(table, gone)[:4], 0)
    assert np.isnan(still(gone, table)).all()
    assert np.isnan(spread(gone, gone)).all()


def test_tables_of_other_shapes_are_refused() -> None:
    for function in (spread, still, same):
        with pytest.raises(PrunescopeError, match="equal shapes"):
            function(np.zeros((2, 3)), np.zeros((2, 4)))
