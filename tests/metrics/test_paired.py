"""Intervals and tests of paired decisions: published numbers, scipy, a second implementation and exact coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.paired import drop, holm, interval, mcnemar, standard_error


def outcomes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """All (losses, gains) with losses + gains <= n."""
    losses, gains = np.divmod(np.arange((n + 1) ** 2), n + 1)
    possible = losses + gains <= n
    return losses[possible], gains[possible]


def by_likelihood(losses: int, gains: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Tango's interval from its definition: the restricted maximum of the likelihood is searched, not solved for."""
    measured, z = (losses - gains) / n, stats.norm.ppf((1 + level) / 2)

    def log_likelihood(gained: float, tested: float) -> float:
        shares = np.array([gained + tested, gained, 1 - 2 * gained - tested])
        counts = np.array([losses, gains, n - losses - gains])
        return float(stats.multinomial.logpmf(counts, n, np.clip(shares, 1e-300, 1)))

    def score(tested: float) -> float:
        ends = (max(0.0, -tested), (1 - tested) / 2)
        gained = optimize.minimize_scalar(
            lambda g: -log_likelihood(g, tested), bounds=ends, method="bounded", options={"xatol": 1e-13}
        ).x
        return (measured - tested) / math.sqrt((2 * gained + tested - tested**2) / n)

    edge = 1e-9
    low = optimize.brentq(lambda t: score(t) - z, -1 + edge, measured - edge) if measured > -1 else -1.0
    high = optimize.brentq(lambda t: score(t) + z, measured + edge, 1 - edge) if measured < 1 else 1.0
    return low, high


def test_the_interval_is_the_published_one() -> None:
    """Airway responsiveness before and after a transplant (Bentur et al. 2009): Fagerland et al. 2014."""
    low, high = interval(np.array(1), np.array(7), 21)
    assert (round(float(low), 3), round(float(high), 3)) == (-0.517, -0.026)


@pytest.mark.parametrize(("losses", "gains", "n"), [(3, 1, 20), (40, 20, 160), (0, 4, 15), (1, 0, 50), (6, 6, 12)])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_equals_its_definition(losses: int, gains: int, n: int, level: float) -> None:
    found = [float(end) for end in interval(np.array(losses), np.array(gains), n, level=level)]
    np.testing.assert_allclose(found, by_likelihood(losses, gains, n, level), atol=2e-6)


def test_without_flips_the_interval_is_wilsons() -> None:
    low, high = interval(np.zeros(1), np.zeros(1), 50)
    wilson = stats.binomtest(0, 50).proportion_ci(method="wilson").high
    assert high[0] == pytest.approx(wilson) == -low[0]


@given(n=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_intervals_of_any_counts(n: int, seed: int) -> None:
    losses, gains = outcomes(min(n, 20))
    low, high = interval(losses, gains, n)
    measured = drop(losses, gains, n)
    assert ((low >= -1) & (low <= measured) & (measured <= high) & (high <= 1)).all()
    assert (low < high).all()  # never a point
    swapped = interval(gains, losses, n)
    np.testing.assert_array_equal([low, high], [-swapped[1], -swapped[0]])
    shuffled = np.random.default_rng(seed).permutation(len(losses))
    np.testing.assert_array_equal(interval(losses[shuffled], gains[shuffled], n)[0], low[shuffled])


@pytest.mark.parametrize("n", [10, 50])
@pytest.mark.parametrize("lost", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("gained", [0.0, 0.02, 0.2])
def test_the_interval_covers_as_often_as_it_says(n: int, lost: float, gained: float) -> None:
    """Exactly, over all outcomes: the score interval holds 93 % or more everywhere here."""
    losses, gains = outcomes(n)
    weight = stats.multinomial.pmf(
        np.stack([losses, gains, n - losses - gains], axis=1), n, [lost, gained, 1 - lost - gained]
    )
    assert weight.sum() == pytest.approx(1)
    low, high = interval(losses, gains, n)
    assert weight[(low <= lost - gained) & (lost - gained <= high)].sum() >= 0.93


def test_walds_interval_would_not() -> None:
    """Why it is not used: 50 images of a class, a unit that costs it 2 %."""
    losses, gains = outcomes(50)
    weight = stats.multinomial.pmf(np.stack([losses, gains, 50 - losses - gains], axis=1), 50, [0.02, 0.0, 0.98])
    half = 1.96 * standard_error(losses, gains, 50)
    assert weight[np.abs(drop(losses, gains, 50) - 0.02) <= half].sum() < 0.7


def test_the_standard_error_is_that_of_the_differences() -> None:
    differences = np.repeat([1.0, -1.0, 0.0], [7, 3, 40])
    assert standard_error(np.array(7), np.array(3), 50) == pytest.approx(differences.std() / math.sqrt(50))
    assert standard_error(np.array(50), np.array(0), 50) == 0


def test_mcnemar_is_the_binomial_test() -> None:
    losses, gains = outcomes(25)
    expected = [
        stats.binomtest(int(b), int(b + g)).pvalue if b + g else 1.0 for b, g in zip(losses, gains, strict=True)
    ]
    np.testing.assert_allclose(mcnemar(losses, gains), expected, rtol=1e-12)


def test_the_mid_p_counts_half_of_what_was_observed() -> None:
    losses, gains = outcomes(25)
    half = stats.binom.pmf(np.minimum(losses, gains), losses + gains, 0.5)
    expected = np.where(losses == gains, 1.0, mcnemar(losses, gains) - half)
    np.testing.assert_allclose(mcnemar(losses, gains, mid=True), expected, rtol=1e-9, atol=1e-15)


def test_nothing_and_impossible_counts() -> None:
    low, high = interval(np.array([0, 1]), np.array([0, 0]), np.array([0, 2]))
    assert np.isnan([low[0], high[0], drop(np.array(0), np.array(0), 0)]).all()
    assert np.isfinite([low[1], high[1]]).all()
    assert interval(np.zeros((0, 3)), np.zeros((0, 3)), np.arange(3))[0].shape == (0, 3)
    for losses, gains in ((2, 2), (-1, 0), (0, -1)):
        with pytest.raises(PrunescopeError, match="losses \\+ gains <= n"):
            interval(np.array(losses), np.array(gains), 3)


def by_steps(p: np.ndarray) -> np.ndarray:
    """Holm's procedure as told: from the smallest on, times how many are left, never less than the one before."""
    found, largest = np.full(len(p), np.nan), 0.0
    places = [int(i) for i in np.argsort(p, kind="stable") if np.isfinite(p[i])]
    for step, place in enumerate(places):
        largest = max(largest, min(1.0, p[place] * (len(places) - step)))
        found[place] = largest
    return found


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), min_size=1, max_size=12))
def test_holm_equals_its_procedure(values: list[float]) -> None:
    p = np.array(values)
    np.testing.assert_allclose(holm(p), by_steps(p), rtol=1e-12)
    table = np.stack([p, p[::-1], np.full(len(p), np.nan)], axis=1)
    np.testing.assert_allclose(holm(table), np.stack([by_steps(column) for column in table.T], axis=1), rtol=1e-12)


def test_holm_keeps_its_promise() -> None:
    """Of 2,000 families of 30 true hypotheses at most 5 % (and sampling noise) have a rejection; without it most do."""
    p = np.random.default_rng(0).random((30, 2000))
    assert 0.03 < (holm(p).min(axis=0) < 0.05).mean() < 0.065
    assert (p.min(axis=0) < 0.05).mean() > 0.7
