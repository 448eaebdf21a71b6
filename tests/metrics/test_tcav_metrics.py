"""The test against random vectors, by hand and against all permutations; how scores of two networks are compared."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import numpy_generator
from prunescope.metrics.tcav import difference, same_found, same_side, standing_out


def over_all_splits(x: np.ndarray, y: np.ndarray) -> float:
    """Share of the ways to call len(x) of all values "the concept's" that are as far from the middle as this one."""
    both, middle = np.concatenate([x, y]), len(x) * len(y) / 2

    def wins(chosen: tuple[int, ...]) -> float:
        mine, others = both[list(chosen)], np.delete(both, list(chosen))
        return float((mine[:, None] > others).sum())

    seen = abs(wins(tuple(range(len(x)))) - middle)
    ways = [abs(wins(c) - middle) >= seen for c in combinations(range(len(both)), len(x))]
    return float(np.mean(ways))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(2, 4), m=st.integers(2, 5))
def test_p_counts_the_permutations(seed: int, n: int, m: int) -> None:
    generator = numpy_generator(seed, "permutations")
    x, y = generator.normal(size=n) + 1, generator.normal(size=m)
    assert float(standing_out(x, y)) == pytest.approx(min(1.0, over_all_splits(x, y)), abs=1e-12)
    assert float(standing_out(-x, -y)) == pytest.approx(float(standing_out(x, y)))


def test_many_at_once_and_without_a_score() -> None:
    x = np.array([[[0.1, 0.2, 0.3]], [[0.9, np.nan, 0.8]], [[1.0, 1.0, 1.0]]])
    y = np.array([[[0.5, 0.6, 0.7, 0.8]], [[0.5, 0.6, 0.7, 0.8]], [[1.0, 1.0, 1.0, 1.0]]])
    found = standing_out(x, y)
    assert found.shape == (3, 1)
    assert found[0, 0] == pytest.approx(2 / 35)
    assert np.isnan(found[1, 0])
    assert found[2, 0] == 1


def test_ties_are_no_evidence() -> None:
    """Shares pile up at 1: the more of the random ones do, the less a concept's stand out."""
    concept = np.ones(10)
    p = [float(standing_out(concept, np.concatenate([np.ones(k), np.zeros(30 - k)]))) for k in (0, 10, 20, 30)]
    assert p[0] < 1e-4
    assert p == sorted(p)
    assert p[-1] == 1


def test_very_many_scores_take_the_normal_approximation() -> None:
    generator = numpy_generator(0, "many")
    x, y = generator.normal(size=120) + 0.3, generator.normal(size=120)
    theirs = mannwhitneyu(x, y, method="asymptotic").pvalue
    assert float(standing_out(x, y)) == pytest.approx(theirs)
    assert float(standing_out(x[:90], y[:90])) == mannwhitneyu(x[:90], y[:90], method="exact").pvalue


def tables() -> tuple[np.ndarray, np.ndarray]:
    a = np.array([[[0.9, 0.2], [np.nan, 0.5]], [[np.nan, np.nan], [np.nan, np.nan]]])
    b = np.array([[[0.7, 0.6], [0.1, 0.5]], [[0.1, 0.2], [0.3, 0.4]]])
    return a, b


def test_difference_and_sides() -> None:
    a, b = tables()
    assert difference(a, b)[0] == pytest.approx((0.2 + 0.4 + 0) / 3)
    assert same_side(a, b)[0] == pytest.approx(2 / 3)  # both on one half count as one side
    assert np.isnan(difference(a, b)[1])
    assert np.isnan(same_side(a, b)[1])


def test_what_is_found_in_both() -> None:
    a = np.array([[[1.0, -1, 0, np.nan]], [[0.0, 0, 0, 0]], [[1.0, 0, 0, 0]], [[1.0, 1, 0, 0]]])
    b = np.array([[[1.0, 1, 1, 1]], [[0.0, 0, 0, 0]], [[-1.0, 0, 0, 0]], [[1.0, 1, 0, 0]]])
    found = same_found(a, b)
    assert found[0] == pytest.approx(1 / 4)  # shared: one; the second is two things, the third is one
    assert np.isnan(found[1])
    assert found[2:].tolist() == [0, 1]
    assert same_found(b, a)[0] == found[0]


def test_shapes_must_agree() -> None:
    for function in (difference, same_side, same_found):
        with pytest.raises(PrunescopeError, match="equal shapes"):
            function(np.zeros((2, 2, 2)), np.zeros((2, 2, 3)))
        with pytest.raises(PrunescopeError, match="equal shapes"):
            function(np.zeros((2, 2)), np.zeros((2, 2)))
