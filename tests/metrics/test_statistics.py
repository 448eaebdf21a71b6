"""Intervals and tests against scipy, and whether the intervals hold what they promise."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.statistics import (
    Interval,
    bootstrap_mean,
    change_point,
    equivalence,
    pooled_spread,
    resamples,
    t_interval,
)


def skewed(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).beta(5, 1, size=n)


@pytest.mark.parametrize("n", [30, 1999, 5000])
def test_bootstrap_agrees_with_scipys(n: int) -> None:
    values = skewed(n)
    found = bootstrap_mean(values, seed=0, draws=4000)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1), batch=500
    ).confidence_interval
    width = theirs.high - theirs.low
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(theirs.low, abs=0.06 * width)  # the noise of 4,000 draws
    assert found.high == pytest.approx(theirs.high, abs=0.06 * width)


def test_the_level_widens_the_interval() -> None:
    for n in (50, 3000):
        wide, narrow = (bootstrap_mean(skewed(n), seed=0, level=level) for level in (0.99, 0.8))
        ratio = (wide.high - wide.low) / (narrow.high - narrow.low)
        assert ratio == pytest.approx(stats.norm.ppf(0.995) / stats.norm.ppf(0.9), rel=0.15)


@pytest.mark.parametrize(("n", "draws"), [(40, 400), (2500, 10)])
def test_the_interval_covers_the_mean_as_often_as_it_says(n: int, draws: int) -> None:
    """95 % intervals of 400 samples; the true mean of Beta(5, 1) is 5/6. 0.91 to 0.975 is over three sigma."""
    intervals = [bootstrap_mean(skewed(n, seed), seed=seed, draws=draws) for seed in range(400)]
    covered = np.mean([found.low <= 5 / 6 <= found.high for found in intervals])
    assert 0.91 <= covered <= 0.975


def test_gaps_are_dropped_and_counted() -> None:
    values = skewed(60)
    with_gaps = np.concatenate([values[:30], [np.nan, np.inf, -np.inf], values[30:]]).astype(np.float64)
    plain, found = bootstrap_mean(values, seed=3), bootstrap_mean(with_gaps, seed=3)
    assert found == Interval(plain.value, plain.low, plain.high, n=60, dropped=3)
    nothing = bootstrap_mean(np.full(4, np.nan), seed=0)
    assert math.isnan(nothing.value)
    assert (nothing.n, nothing.dropped) == (0, 4)
    one = bootstrap_mean(np.array([0.5]), seed=0)
    assert one.value == 0.5
    assert math.isnan(one.low)
    assert math.isnan(one.high)


def test_the_same_seed_gives_the_same_interval() -> None:
    values = skewed(100)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


def test_bounds_stay_where_values_can_be() -> None:
    nearly = np.ones(10_000)
    nearly[0] = 0
    assert bootstrap_mean(nearly, seed=0).high == 1
    assert bootstrap_mean(np.ones(50), seed=0) == Interval(1, 1, 1, 50)


def test_resamples_are_draws_with_replacement() -> None:
    weights = np.concatenate(list(resamples(30, 5000, seed=0)))
    assert weights.shape == (5000, 30)
    assert (weights.sum(axis=1) == 30).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1, atol=0.07)  # five sigma
    np.testing.assert_allclose(weights.var(axis=0), 1 - 1 / 30, atol=0.15)


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(resamples(7, 10, seed=0)))
    monkeypatch.setattr("prunescope.metrics.statistics._BLOCK", 20)
    blocks = list(resamples(7, 10, seed=0))
    assert [len(block) for block in blocks] == [2, 2, 2, 2, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


@pytest.mark.parametrize("n", [2000, 10_000])
def test_a_bootstrap_takes_a_fraction_of_a_second(n: int) -> None:
    values = skewed(n)
    start = time.perf_counter()
    bootstrap_mean(values, seed=0)
    assert time.perf_counter() - start < 0.3


def test_t_interval_equals_scipys() -> None:
    values = np.array([0.71, 0.75, 0.69, np.nan])
    expected = stats.ttest_1samp(values[:3], 0).confidence_interval(0.95)
    found = t_interval(values)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], atol=1e-12)
    assert (found.n, found.dropped) == (3, 1)
    single = t_interval(np.array([0.7]))
    assert single.value == 0.7
    assert math.isnan(single.low)


def test_the_pooled_spread_is_the_error_of_a_one_way_anova() -> None:
    groups = [np.array([0.7, 0.72, 0.69]), np.array([0.5, 0.56]), np.array([0.4]), np.array([np.nan, 0.3, 0.31])]
    spread = pooled_spread(groups)
    squares = sum(np.nanvar(g) * np.isfinite(g).sum() for g in groups)
    assert spread.dof == 2 + 1 + 0 + 1
    assert spread.sd == pytest.approx(math.sqrt(squares / 4))
    f, _ = stats.f_oneway(*(g[np.isfinite(g)] for g in groups))
    values = np.concatenate([g[np.isfinite(g)] for g in groups])
    between = sum(np.isfinite(g).sum() * (np.nanmean(g) - values.mean()) ** 2 for g in groups) / 3
    assert between / spread.sd**2 == pytest.approx(f)
    single = t_interval(np.array([0.4]), spread)  # one run borrows the spread of the others
    assert single.high - single.low == pytest.approx(2 * stats.t.ppf(0.975, 4) * spread.sd)
    assert pooled_spread([np.array([0.4])]).dof == 0


@pytest.mark.parametrize("mean", [0.0, 0.004, -0.02])
def test_equivalence_is_two_t_tests(mean: float) -> None:
    values = mean + np.random.default_rng(0).normal(0, 0.005, size=6)
    above = stats.ttest_1samp(values, -0.01, alternative="greater").pvalue
    below = stats.ttest_1samp(values, 0.01, alternative="less").pvalue
    found = equivalence(np.append(values, np.nan), margin=0.01)
    assert found.p == pytest.approx(max(above, below), abs=1e-12)
    assert (found.n, found.mean) == (6, pytest.approx(values.mean()))
    interval = t_interval(values, level=0.9)  # TOST at 5 % is the 90 % interval inside the margin
    assert found.holds() == (interval.low > -0.01 and interval.high < 0.01)


def test_equivalence_of_too_little_or_constant_data() -> None:
    assert math.isnan(equivalence(np.array([0.0]), margin=0.1).p)
    assert not equivalence(np.array([0.0]), margin=0.1).holds()
    assert math.isnan(equivalence(np.array([np.nan]), margin=0.1).mean)
    assert equivalence(np.zeros(3), margin=0.1).holds()
    assert not equivalence(np.full(3, 0.5), margin=0.1).holds()
    with pytest.raises(PrunescopeError, match="margin"):
        equivalence(np.zeros(3), margin=0)


@pytest.mark.parametrize(
    ("beyond", "expected"),
    [
        ([False, False, True, True], 0.2),
        ([True, False, True, True], 0.2),
        ([True, True, True, True], 0.8),
        ([True, True, True, False], None),
        ([False, False, False, True], 0.1),
    ],
)
def test_the_change_point_needs_every_lower_density(beyond: list[bool], expected: float | None) -> None:
    assert change_point([0.8, 0.5, 0.2, 0.1], beyond) == expected
    assert change_point([0.1, 0.2, 0.5, 0.8], beyond[::-1]) == expected
