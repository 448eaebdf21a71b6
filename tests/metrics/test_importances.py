"""Distances between tables of units, beside scipy, closed forms and naive loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics import importances
from prunescope.metrics.statistics import resamples

NAN = float("nan")


def tables(seed: int, layers: int = 5, units: int = 23) -> tuple[np.ndarray, np.ndarray]:
    """Two tables with their own gaps, and values in steps, so that many are equal."""
    generator = np.random.default_rng(seed)
    found = generator.integers(-3, 9, size=(2, layers, units)) / 8
    found[generator.random(found.shape) < 0.3] = NAN
    return found[0], found[1]


def shuffled(table: np.ndarray, seed: int) -> np.ndarray:
    """Every layer's units in another order."""
    return np.random.default_rng(seed).permuted(table, axis=1)


@given(seed=st.integers(0, 999))
def test_wasserstein_equals_scipys_and_does_not_see_the_order_of_units(seed: int) -> None:
    a, b = tables(seed)
    found = importances.wasserstein(a, b)
    expected = [stats.wasserstein_distance(x[np.isfinite(x)], y[np.isfinite(y)]) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(importances.wasserstein(b, shuffled(a, seed)), found, atol=1e-12)
    np.testing.assert_array_equal(importances.wasserstein(a, shuffled(a, seed)), 0)
    np.testing.assert_allclose(importances.wasserstein(a, a + 0.25), 0.25, atol=1e-12)


def test_a_layer_without_living_units_has_no_distribution() -> None:
    a = np.array([[0.5, NAN], [NAN, NAN]])
    np.testing.assert_array_equal(importances.wasserstein(a, np.array([[NAN, 0.25], [0.5, 0.5]])), [0.25, NAN])


@given(seed=st.integers(0, 999))
def test_order_equals_scipys_over_units_that_live_in_both(seed: int) -> None:
    a, b = tables(seed)
    expected = []
    for x, y in zip(a, b, strict=True):
        known = np.isfinite(x) & np.isfinite(y)
        expected.append(stats.spearmanr(x[known], y[known]).statistic if known.sum() > 2 else NAN)
    np.testing.assert_allclose(importances.order(a, b), expected, atol=1e-12)
    np.testing.assert_allclose(importances.order(a, np.exp(a)), 1)
    np.testing.assert_allclose(importances.order(a, -a), -1)


@given(seed=st.integers(0, 999), units=st.integers(1, 41))
def test_the_top_tenth_equals_a_loop(seed: int, units: int) -> None:
    a, b = tables(seed, units=units)
    for found, x, y in zip(importances.top_tenth(a, b), a, b, strict=True):
        both = [i for i in range(units) if np.isfinite(x[i]) and np.isfinite(y[i])]
        if len(both) < 3 or any(len({row[i] for i in both}) == 1 for row in (x, y)):
            assert np.isnan(found)
            continue
        count = next(k for k in range(1, units + 1) if 10 * k >= len(both))
        first, second = ({i for _, i in sorted((-row[i], i) for i in both)[:count]} for row in (x, y))
        assert found == len(first & second) / count


@given(seed=st.integers(0, 999))
def test_class_profiles_equal_numpys_correlation(seed: int) -> None:
    a, b = tables(seed)
    for found, x, y in zip(importances.profile(a, b), a, b, strict=True):
        known = np.isfinite(x) & np.isfinite(y)
        expected = np.corrcoef(x[known], y[known])[0, 1] if known.sum() > 2 else NAN
        np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(importances.profile(a, 2 * a + 1), 1)


def test_a_profile_that_is_constant_or_short_says_nothing() -> None:
    rising = np.array([[1.0, 2, 3], [1, 2, 3], [1, 2, 3]])
    other = np.array([[5.0, 5, 5], [1, NAN, 2], [3, 2, 1]])
    np.testing.assert_array_equal(importances.profile(rising, other), [NAN, NAN, -1])


def test_shares_differ_by_their_distance() -> None:
    found = importances.share(np.array([0.25, 0.75, NAN]), np.array([0.5, 0.5, 1.0]))
    np.testing.assert_array_equal(found, [0.25, 0.25, NAN])


def test_the_overlap_of_sets_equals_a_loop_and_weights_repeat_images() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 30, 4)) < 0.3
    a[:, 3] = b[:, 3] = False

    def jaccard(rows: np.ndarray, layer: int) -> float:
        first, second = ([(i, k) for k, i in enumerate(rows) if table[i, layer]] for table in (a, b))
        either = set(first) | set(second)
        return len(set(first) & set(second)) / len(either) if either else NAN

    np.testing.assert_allclose(importances.overlap(a, b), [jaccard(np.arange(30), k) for k in range(4)])
    (weights,) = resamples(30, 20, seed=1)
    for row, counts in zip(importances.overlap(a, b, weights), weights, strict=True):
        picked = np.repeat(np.arange(30), counts.astype(int))
        np.testing.assert_allclose(row, [jaccard(picked, k) for k in range(4)])
    assert importances.overlap(a, a)[:3].tolist() == [1, 1, 1]
    assert importances.overlap(a, ~a)[:3].tolist() == [0, 0, 0]


@pytest.mark.parametrize("name", ["wasserstein", "profile", "order", "top_tenth", "overlap", "share"])
def test_networks_of_other_shapes_are_refused(name: str) -> None:
    shape = (3,) if name == "share" else (3, 4)
    with pytest.raises(PrunescopeError, match="equal shapes"):
        getattr(importances, name)(np.zeros(shape), np.zeros((2, *shape[1:])))
