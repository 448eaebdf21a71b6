"""Correlations of concept scores, and their bootstrap by weighted moments."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.scores import correlation
from prunescope.metrics.statistics import resamples


def pair(images: int = 50, concepts: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(images, concepts))
    return a, a * [1, 0.5, -1, 0] + generator.normal(size=(images, concepts))


def test_correlation_equals_scipys_whatever_the_scale() -> None:
    a, b = pair()
    expected = [stats.pearsonr(a[:, k], b[:, k]).statistic for k in range(4)]
    np.testing.assert_allclose(correlation(a, b), expected, atol=1e-12)
    np.testing.assert_allclose(correlation(a * 1e-9 + 3, b * 1e9 - 1e8), expected, atol=1e-6)
    np.testing.assert_allclose(correlation(a.astype(np.float32), b), expected, atol=1e-6)


def test_weights_equal_repeating_images() -> None:
    a, b = pair(images=20)
    (weights,) = resamples(20, 30, seed=1)
    found = correlation(a, b, weights)
    for row, counts in zip(found, weights, strict=True):
        picked = np.repeat(np.arange(20), counts.astype(int))
        expected = [stats.pearsonr(a[picked, k], b[picked, k]).statistic for k in range(4)]
        np.testing.assert_allclose(row, expected, atol=1e-10)


def test_scores_that_do_not_vary_have_no_correlation() -> None:
    a, b = pair()
    a[:, 0], b[:, 1], a[3, 2] = 0.1, -7.3, np.nan
    assert np.isnan(correlation(a, b)).tolist() == [True, True, True, False]
    one_image = np.zeros((1, 50))
    one_image[0, 5] = 50
    assert np.isnan(correlation(a, b, one_image)).all()


def test_other_concepts_are_refused() -> None:
    a, b = pair()
    with pytest.raises(PrunescopeError, match="equal shapes"):
        correlation(a, b[:, :3])
