"""Distances between concept contributions against scipy and naive loops over the definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics import rankings
from prunescope.metrics.families import FAMILIES

Array = np.ndarray[Any, np.dtype[Any]]
ALL = {distance.name: distance for distance in FAMILIES["rankings"]}


def sparse(classes: int, concepts: int, seed: int) -> Array:
    """Contributions as a sparse bottleneck has them: about 40 % zero, some equal, of both signs."""
    generator = np.random.default_rng(seed)
    drawn = generator.normal(size=(classes, concepts)).round(1)
    return drawn * (generator.random((classes, concepts)) < 0.6)


def ranked(row: Array) -> list[int]:
    return [k for k in sorted(range(len(row)), key=lambda k: (-row[k], k)) if row[k] > 0]


def naive_rbo(one: list[int], two: list[int], p: float = 0.9) -> float:
    """Webber, Moffat and Zobel 2010, eq. 32, in their notation: S is the shorter list, L the longer."""
    S, L = sorted((one, two), key=len)
    s, l = len(S), len(L)
    if not l:
        return float("nan")
    if not s:
        return 0.0
    X = {d: len(set(S[:d]) & set(L[:d])) for d in range(1, l + 1)}
    first = sum(X[d] / d * p**d for d in range(1, l + 1))
    second = sum(X[s] * (d - s) / (s * d) * p**d for d in range(s + 1, l + 1))
    return (1 - p) / p * (first + second) + ((X[l] - X[s]) / l + X[s] / s) * p**l


@pytest.mark.parametrize("concepts", [1, 4, 12, 40])
def test_rbo_equals_the_papers_formula(concepts: int) -> None:
    a, b = sparse(30, concepts, 0), sparse(30, concepts, 1)
    keep = (a != 0).any(axis=1) & (b != 0).any(axis=1)
    expected = [naive_rbo(ranked(x), ranked(y)) for x, y in zip(a[keep], b[keep], strict=True)]
    np.testing.assert_allclose(rankings.rbo(a[keep], b[keep]), expected, atol=1e-12)


def test_rbo_is_the_limit_of_ever_longer_lists() -> None:
    """Without extrapolation: (1-p) sum p^(d-1) A_d over a common ranking of very many concepts (eq. 4)."""
    generator = np.random.default_rng(0)
    a, b = generator.random((1, 300)) + 0.1, generator.random((1, 300)) + 0.1
    b[0, :100] = a[0, :100]
    one, two = ranked(a[0]), ranked(b[0])
    series = sum(0.1 * 0.9 ** (d - 1) * len(set(one[:d]) & set(two[:d])) / d for d in range(1, 301))
    assert rankings.rbo(a, b)[0] == pytest.approx(series, abs=1e-12)


def test_jaccard_is_over_concepts_that_speak_for_the_class() -> None:
    a = np.array([[9, 8, 7, 6, 5, 4, 0, 0], [2, 1, 0, 0, 0, 0, 0, -1], [-1, 0, 0, 0, 0, 0, 0, 0]], dtype=float)
    b = np.array([[9, 8, 7, 0, 0, 6, 5, 0], [0, 1, 0, 0, 0, 0, 0, 3], [-2, 0, 0, 0, 0, 0, 0, 0]], dtype=float)
    np.testing.assert_allclose(rankings.jaccard(a, b), [3 / 7, 1 / 3, np.nan])


def test_unused_concepts_are_not_agreement() -> None:
    """Two bottlenecks that each use one concept, and not the same one, agree in nothing."""
    a, b = np.zeros((1, 40)), np.zeros((1, 40))
    a[0, 30], b[0, 31] = 1, 1
    assert rankings.jaccard(a, b)[0] == rankings.rbo(a, b)[0] == 0


def test_kendall_equals_pairs_counted_one_by_one() -> None:
    a, b = sparse(5, 12, 0), sparse(5, 12, 1)
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        signs = [(np.sign(x[i] - x[j]), np.sign(y[i] - y[j])) for i in range(12) for j in range(i)]
        numerator = sum(p * q for p, q in signs)
        untied = [sum(p != 0 for p, _ in signs), sum(q != 0 for _, q in signs)]
        assert rankings.kendall(a, b)[k] == pytest.approx(numerator / np.sqrt(untied[0] * untied[1]), abs=1e-12)
        assert rankings.kendall(a, b)[k] == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert np.isnan(rankings.kendall(np.ones((1, 4)), b[:1, :4] + 1)).all()


def test_sign_flips_and_cosine_by_hand() -> None:
    a = np.array([[1.0, -2.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    b = np.array([[-1.0, -1.0, 3.0, 0.0], [0.0, 2.0, 0.0, 0.0]])
    np.testing.assert_allclose(rankings.sign_flips(a, b), [1 / 3, 0])
    np.testing.assert_allclose(rankings.cosine(a, b), [1 / np.sqrt(5 * 11), 0], atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_classes_without_contributions_are_nan(name: str) -> None:
    a, b = sparse(4, 12, 0), sparse(4, 12, 1)
    whole = ALL[name].function(a, b)
    a[1], b[2] = 0, np.nan
    found = ALL[name].function(a, b)
    assert np.isnan(found).tolist() == [False, True, True, False]
    np.testing.assert_array_equal(found[[0, 3]], whole[[0, 3]])
    with pytest.raises(PrunescopeError, match="equal shapes"):
        ALL[name].function(a, b[:, :3])


@pytest.mark.parametrize("name", ALL)
def test_a_concept_that_is_not_used_counts_as_saying_nothing(name: str) -> None:
    a, b = sparse(4, 12, 0), sparse(4, 12, 1)
    b[:, 3] = 0
    expected = ALL[name].function(a, b)
    b[:, 3] = np.nan
    np.testing.assert_array_equal(ALL[name].function(a, b), expected)


rows = arrays(np.float64, (2, 7), elements=st.integers(-4, 4).map(float)).filter(
    lambda m: bool((m > 0).any(axis=1).all() and (np.ptp(m, axis=1) > 0).all())
)


@settings(max_examples=80, deadline=None)
@given(rows, rows, st.sampled_from([1e-200, 0.5, 8.0, 1e200]))
def test_laws_of_all_ranking_distances(a: Array, b: Array, scale: float) -> None:
    for name, distance in ALL.items():
        found = distance.function(a, b)
        low, high = distance.range
        assert ((found >= low - 1e-12) & (found <= high + 1e-12)).all(), name
        np.testing.assert_allclose(found, distance.function(b, a), atol=1e-12, err_msg=f"{name}: symmetric")
        np.testing.assert_allclose(found, distance.function(a, b * scale), atol=1e-9, err_msg=f"{name}: scale")
        same = 1.0 if distance.higher_is_better else 0.0
        np.testing.assert_allclose(distance.function(a, a), same, atol=1e-12, err_msg=f"{name}: identical")
