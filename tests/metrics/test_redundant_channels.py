"""Redundancy, clusters and the diversity that a removal keeps, beside loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError
from prunescope.metrics import redundancy as of


def maps(seed: int, channels: int, values: int = 40) -> np.ndarray:
    """Activations (channels, values); some channels resemble others, some are constant."""
    generator = np.random.default_rng(seed)
    mixed = generator.normal(size=(channels, 3)) @ generator.normal(size=(3, values))
    found = mixed + generator.choice([0.1, 2.0], size=(channels, 1)) * generator.normal(size=(channels, values))
    found[generator.random(channels) < 0.15] = 0.3
    return found


def correlated(seed: int, channels: int) -> np.ndarray:
    values = maps(seed, channels)
    shifted = values - values.mean(axis=1, keepdims=True) - 0.01
    constant = values.min(axis=1) == values.max(axis=1)
    return of.correlations(values.shape[1], shifted.sum(axis=1), shifted @ shifted.T, constant)


@given(seed=st.integers(0, 999), channels=st.integers(1, 8))
@settings(max_examples=40, deadline=None)
def test_moments_give_numpys_correlations(seed: int, channels: int) -> None:
    found, values = correlated(seed, channels), maps(seed, channels)
    varied = np.ptp(values, axis=1) > 0
    assert np.isnan(found[~varied]).all()
    assert np.isnan(found[:, ~varied]).all()
    if varied.any():
        expected = np.corrcoef(values[varied]).reshape(varied.sum(), -1)
        np.testing.assert_allclose(found[np.ix_(varied, varied)], expected, atol=1e-10)
        assert (np.diagonal(found)[varied] == 1).all()


def test_rounding_lends_a_constant_channel_no_correlation() -> None:
    products = np.array([[1e-20, 1e-10], [1e-10, 4.0]])
    found = of.correlations(10, np.zeros(2), products, np.array([True, False]))
    np.testing.assert_array_equal(found, [[np.nan, np.nan], [np.nan, 1]])


def by_loop(correlations: np.ndarray, unit: int, alive: list[int]) -> float:
    found = [correlations[unit, j] for j in alive if j != unit and not np.isnan(correlations[unit, j])]
    return max(found) if found else np.nan


@given(seed=st.integers(0, 999), channels=st.integers(1, 8), removed=st.integers(0, 8))
@settings(max_examples=60, deadline=None)
def test_redundancy_equals_loops(seed: int, channels: int, removed: int) -> None:
    table = correlated(seed, channels)
    order = np.random.default_rng(seed).permutation(channels)[:removed]
    alive = ~np.isin(np.arange(channels), order)
    left = [int(j) for j in np.flatnonzero(alive)]
    expected = [by_loop(table, i, left) for i in range(channels)]
    np.testing.assert_array_equal(of.redundancy(table, alive), expected)
    stepwise, remaining = [], list(range(channels))
    for unit in order:
        remaining.remove(int(unit))
        stepwise.append(by_loop(table, int(unit), remaining))
    np.testing.assert_array_equal(of.redundancy_when_removed(table, order), stepwise)


def upgma(correlations: np.ndarray, threshold: float) -> list[set[int]]:
    """Average linkage as told: join the two clusters most alike on average, while that reaches the threshold."""
    groups = [{i} for i in range(len(correlations)) if not np.isnan(correlations[i, i])]
    while len(groups) > 1:
        pairs = [(a, b) for a in range(len(groups)) for b in range(a + 1, len(groups))]
        alike = [np.mean([correlations[i, j] for i in groups[a] for j in groups[b]]) for a, b in pairs]
        if max(alike) < threshold:
            break
        a, b = pairs[int(np.argmax(alike))]
        groups[a] |= groups.pop(b)
    return groups


@given(seed=st.integers(0, 999), channels=st.integers(1, 10), threshold=st.sampled_from([0.8, 0.3]))
@settings(max_examples=60, deadline=None)
def test_clusters_are_those_of_average_linkage(seed: int, channels: int, threshold: float) -> None:
    table = correlated(seed, channels)
    found = of.clusters(table, threshold)
    expected = sorted(upgma(table, threshold), key=min)
    assert [set(np.flatnonzero(found == k)) for k in range(found.max() + 1)] == expected
    assert ((found == -1) == np.isnan(np.diagonal(table))).all()


def test_a_chain_is_not_one_cluster() -> None:
    """Each is like the next, the ends are not alike: connected components would make one of all four."""
    angles = np.arange(4) * np.deg2rad(34)
    table = np.cos(angles[:, None] - angles)
    assert table[0, 1] > 0.8
    found = of.clusters(table)
    assert found.tolist() == [0, 0, 1, 1]


@given(seed=st.integers(0, 999), channels=st.integers(2, 10), removed=st.integers(0, 10))
@settings(max_examples=60, deadline=None)
def test_diversity_equals_a_loop(seed: int, channels: int, removed: int) -> None:
    generator = np.random.default_rng(seed)
    clusters = np.unique(generator.integers(-1, 4, size=channels), return_inverse=True)[1] - 1
    if clusters.max() < 0:
        return
    order = generator.permutation(channels)[:removed]
    curve = of.diversity_kept(clusters, order)
    kinds = set(clusters.tolist()) - {-1}
    expected = [len(kinds & set(np.delete(clusters, order[:t]).tolist())) / len(kinds) for t in range(len(order) + 1)]
    np.testing.assert_allclose(curve, expected, atol=1e-15)
    assert curve[0] == 1
    assert (np.diff(curve) <= 0).all()


def test_duplicates_go_first_without_loss() -> None:
    values = np.random.default_rng(0).normal(size=(3, 50))
    values = np.concatenate([values, values])
    table = np.corrcoef(values)
    np.fill_diagonal(table, 1.0)
    kinds = of.clusters(table)
    assert kinds.tolist() == [0, 1, 2, 0, 1, 2]
    assert of.diversity_kept(kinds, np.arange(6)).tolist() == pytest.approx([1, 1, 1, 1, 2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(of.redundancy_when_removed(table, np.arange(3)), 1)
    assert of.redundancy(table, np.arange(6) == 3)[:4].round(6).tolist()[0] == 1
    assert np.isnan(of.redundancy(table, np.arange(6) == 3)[3])  # it is the only one left


def test_orders_and_layers_that_make_no_sense_are_refused() -> None:
    clusters = np.array([0, 0, 1])
    for order in ([0, 0], [3], [-1]):
        with pytest.raises(PrunescopeError, match="at most once"):
            of.diversity_kept(clusters, np.array(order))
        with pytest.raises(PrunescopeError, match="at most once"):
            of.redundancy_when_removed(np.eye(3), np.array(order))
    with pytest.raises(PrunescopeError, match="no diversity"):
        of.diversity_kept(np.array([-1, -1]), np.array([0]))
