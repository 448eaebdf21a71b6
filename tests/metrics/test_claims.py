"""Claims from runs, beside scipy, all permutations, and simulated runs whose truth is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.claims import claims, permutation_within


def test_p_values_equal_scipys_corrected_for_the_number_of_claims() -> None:
    generator = np.random.default_rng(0)
    runs = {name: generator.normal(mean, 0.02, 8) for name, mean in (("a", 0.0), ("b", 0.02), ("c", 0.1))}
    found = claims(runs, 0.03)
    plain = np.sort([stats.ttest_1samp(values, 0).pvalue for values in runs.values()])
    corrected = np.maximum.accumulate(plain * [3, 2, 1]).clip(max=1)
    np.testing.assert_allclose(sorted(item.p for item in found.values()), corrected)
    single = claims({"a": runs["a"]}, 0.03)["a"]
    low = stats.ttest_1samp(runs["a"], -0.03, alternative="greater").pvalue
    high = stats.ttest_1samp(runs["a"], 0.03, alternative="less").pvalue
    assert single.p_equal == pytest.approx(max(low, high))
    assert (single.difference.low, single.difference.high) == pytest.approx(
        stats.ttest_1samp(runs["a"], 0).confidence_interval()
    )


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ([0.20, 0.22, 0.18, 0.21], "supported"),
        ([-0.20, -0.22, -0.18, -0.21], "supported"),
        ([0.001, -0.002, 0.0, 0.002], "not supported"),
        ([0.010, 0.011, 0.010, 0.009], "not supported"),  # surely not 0, and surely too little to matter
        ([0.3, -0.2, 0.1, 0.0], "undecided"),
        ([0.2], "undecided"),
        ([], "undecided"),
        ([0.2, 0.2], "supported"),
        ([0.0, 0.0], "not supported"),
        ([0.2, np.nan], "undecided"),
    ],
)
def test_outcomes(values: list[float], outcome: str) -> None:
    found = claims({"it": np.array(values)}, 0.05)["it"]
    assert found.outcome == outcome
    assert found.difference.n == np.isfinite(values).sum()


def test_wrong_claims_are_as_rare_as_promised() -> None:
    """1,000 simulated studies of 6 runs: at the margin neither outcome is wrong more often than alpha allows."""
    generator = np.random.default_rng(0)
    none, at_margin, large = (
        [claims({"it": generator.normal(mean, 0.03, 6)}, 0.05)["it"] for _ in range(1000)] for mean in (0, 0.05, 0.2)
    )
    assert sum(item.outcome == "supported" for item in none) <= 10
    wrong = sum(item.outcome == "not supported" for item in at_margin)
    assert wrong <= 71  # of 50 expected; once in 1,000 more
    assert sum(item.outcome == "supported" for item in large) >= 990
    covered = sum(item.difference.low <= 0.05 <= item.difference.high for item in at_margin)
    assert 925 <= covered <= 975


def test_the_permutation_test_equals_all_permutations() -> None:
    generator = np.random.default_rng(1)
    x, y, groups = generator.normal(size=7), generator.normal(size=7), ["a"] * 4 + ["b"] * 3
    y += 0.8 * x
    slopes = []
    for first in permutations(range(4)):
        for second in permutations(range(4, 7)):
            z = x[[*first, *second]]
            parts = [(z[p] - z[p].mean(), y[p] - y[p].mean()) for p in (slice(0, 4), slice(4, 7))]
            slopes.append(sum(u @ v for u, v in parts) / sum(u @ u for u, _ in parts))
    exact = np.mean(np.abs(slopes) >= abs(slopes[0]) - 1e-12)
    slope, p = permutation_within(x, y, groups, draws=20_000)
    assert slope == pytest.approx(slopes[0])
    assert p == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4)


def test_differences_between_methods_are_no_effect_and_p_is_uniform_without_one() -> None:
    generator, groups = np.random.default_rng(2), ["a"] * 6 + ["b"] * 6
    shift = np.repeat([0.0, 50.0], 6)
    p = [permutation_within(*(generator.normal(size=(2, 12)) + shift), groups, draws=199)[1] for _ in range(400)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    x = generator.normal(size=12)
    slope, least = permutation_within(x + shift, 0.5 * x - shift, groups, draws=199)
    assert (slope, least) == (pytest.approx(0.5), 1 / 200)


def test_without_variation_within_a_method_there_is_nothing_to_tell() -> None:
    groups = ["a", "a", "b", "b"]
    assert np.isnan(permutation_within(np.array([0.1, 0.1, 0.3, 0.3]), np.arange(4.0), groups)).all()
    assert np.isnan(permutation_within(np.arange(4.0), np.full(4, np.nan), groups)).all()
    one = permutation_within(np.array([0.1, 0.2, 0.3, 0.3]), np.array([1.0, 2.0, 5.0, 9.0]), groups, draws=99)
    assert one == (pytest.approx(10), 1.0)  # both orders of two runs are as far from 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(PrunescopeError, match="margin must be above 0"):
        claims({"it": np.zeros(3)}, 0)
    with pytest.raises(PrunescopeError, match="alpha must lie between 0 and 1, got 5"):
        claims({"it": np.zeros(3)}, 0.1, alpha=5)
    with pytest.raises(PrunescopeError, match=r"must be \(runs,\)"):
        permutation_within(np.zeros(3), np.zeros(4), ["a"] * 3)
    assert claims({}, 0.1) == {}
