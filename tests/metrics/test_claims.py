"""Claims from runs, beside scipy, all permutations, and simulated runs whose truth is known."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.claims import (
    Evidence,
    claims,
    evidence,
    judged,
    permutation_within,
    pooled_correlation,
    runs_needed,
    shared_spread,
)
from prunescope.metrics.statistics import Interval, pooled_spread


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


def test_a_spread_known_from_all_densities_counts_for_what_it_knows() -> None:
    generator = np.random.default_rng(0)
    runs = [generator.normal(0.1, 0.02, 3) for _ in range(4)]
    spread = shared_spread(runs)
    assert spread.sd == pytest.approx(np.sqrt(np.mean([values.var(ddof=1) for values in runs])))
    assert spread.dof == pytest.approx(2 * 4 / (1 + 3 / 4))
    found = evidence(runs[0], 0.05, spread)
    error = spread.sd / np.sqrt(3)
    assert found.p == pytest.approx(2 * stats.t.sf(runs[0].mean() / error, spread.dof))
    assert found.p_equal == pytest.approx(stats.t.sf((0.05 - runs[0].mean()) / error, spread.dof))
    assert found.effect.high - found.effect.low == pytest.approx(2 * stats.t.ppf(0.975, spread.dof) * error)
    alone = evidence(runs[0], 0.05, shared_spread(runs[:1]))
    assert (alone.p, alone.p_equal) == pytest.approx((evidence(runs[0], 0.05).p, evidence(runs[0], 0.05).p_equal))
    assert np.isnan(evidence(np.array([0.2]), 0.05, shared_spread([np.array([0.2])])).p)


def test_seeds_that_share_a_control_are_not_counted_twice() -> None:
    """2,000 simulated recipes of eight densities and two seeds, each seed's control shared by its eight tickets."""
    generator, wrong, equal, naive = np.random.default_rng(2), 0, 0, 0
    for _ in range(2000):
        control, tickets = generator.normal(0, 0.02, 2), generator.normal(0, 0.02, (8, 2))
        none, at_margin = list(tickets - control), list(tickets - control + 0.05)
        wrong += evidence(none[0], 0.05, shared_spread(none)).p < 0.05
        equal += evidence(at_margin[0], 0.05, shared_spread(at_margin)).p_equal < 0.05
        naive += evidence(none[0], 0.05, pooled_spread(none)).p < 0.05
    assert 20 <= wrong <= 100  # 5 % at most, and not so careful that nothing is ever shown
    assert 20 <= equal <= 100
    assert naive > 125  # where the control is forgotten


def test_claims_of_any_kind_share_one_correction() -> None:
    interval = Interval(0.2, 0.1, 0.3, 8)
    found = judged({"a": Evidence(interval, 0.05, 0.03, 0.9), "b": Evidence(interval, 0.05, 0.01, 0.9)})
    assert [(item.p, item.outcome) for item in found.values()] == [(0.03, "supported"), (0.02, "supported")]
    three = judged({str(i): Evidence(interval, 0.05, 0.03, 0.9) for i in range(3)})
    assert {(round(item.p, 6), item.outcome) for item in three.values()} == {(0.09, "undecided")}


@pytest.mark.parametrize("mean", [0.03, 0.012, 0.0, 0.004, -0.004, -0.03])
def test_as_many_runs_as_are_needed_decide_as_often_as_promised(mean: float) -> None:
    n = runs_needed(mean, 0.02, 0.01)
    assert n is not None

    def decided(runs: int) -> float:
        x = np.random.default_rng(2).normal(mean, 0.02, (4000, runs))
        error = x.std(1, ddof=1) / np.sqrt(runs)
        if abs(mean) >= 0.01:
            return float((stats.ttest_1samp(x, 0, axis=1).pvalue < 0.05).mean())
        return float((stats.t.sf((0.01 - np.abs(x.mean(1))) / error, runs - 1) < 0.05).mean())

    assert decided(n) >= 0.78
    assert decided(n - 1) < 0.82


def test_what_no_number_of_runs_would_decide() -> None:
    assert runs_needed(0.00999, 0.02, 0.01) is None
    assert runs_needed(float("nan"), 0.02, 0.01) is None
    assert runs_needed(0.02, float("nan"), 0.01) is None
    assert runs_needed(0.02, 0.0, 0.01) == runs_needed(5.0, 1e-6, 0.01) == 2


def test_the_pooled_correlation_equals_numpys() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 20))
    y[4] = np.nan
    known = np.isfinite(y)
    found, p = pooled_correlation(x, y)
    r = np.corrcoef(x[known], y[known])[0, 1]
    half = stats.norm.ppf(0.975) / np.sqrt(19 - 3)
    assert found.value == pytest.approx(r)
    assert (found.low, found.high) == pytest.approx((np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)))
    assert p == pytest.approx(2 * stats.t.sf(abs(r) * np.sqrt(17 / (1 - r * r)), 17))
    assert (found.n, found.dropped) == (19, 1)
    assert np.isnan(pooled_correlation(np.ones(9), np.arange(9.0))[1])
    with pytest.raises(PrunescopeError, match=r"two arrays \(runs,\)"):
        pooled_correlation(np.ones(3), np.ones(4))
