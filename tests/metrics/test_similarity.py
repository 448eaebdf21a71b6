"""CKA beside the published formula, a loop over quadruples of images, and closed forms."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.core.errors import PrunescopeError
from prunescope.metrics import similarity
from prunescope.metrics.similarity import cka
from prunescope.metrics.statistics import resamples

Array = np.ndarray


def features(seed: int, n: int = 30, layers: int = 2, width: int = 5, shared: float = 0.0) -> tuple[Array, Array]:
    """Two networks' features, `shared` of 0 to 1 alike, far from 0 and with a silent unit."""
    generator = np.random.default_rng(seed)
    x, noise = generator.normal(size=(2, n, layers, width))
    x, y = x + 3, shared * x + (1 - shared) * noise - 2
    x[:, :, -1] = 0.7
    return x, y


def songs(x: Array, y: Array) -> float:
    """HSIC_1 as it is printed."""
    n, one = len(x), np.ones(len(x))
    k, l = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    shifted = one @ k @ one * (one @ l @ one) / ((n - 1) * (n - 2))
    return float((np.trace(k @ l) + shifted - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3)))


def printed(x: Array, y: Array) -> float:
    return songs(x, y) / np.sqrt(songs(x, x) * songs(y, y))


def by_quadruples(x: Array, y: Array, w: Array) -> float:
    """The weighted mean of k_ij (l_ij - 2 l_iq + l_qr) over all ordered quadruples of different images."""
    k, l, total, mass = x @ x.T, y @ y.T, 0.0, 0.0
    for i, j, q, r in permutations(range(len(x)), 4):
        weight = w[i] * w[j] * w[q] * w[r]
        total += weight * k[i, j] * (l[i, j] - 2 * l[i, q] + l[q, r])
        mass += weight
    return total / mass


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(5, 40), shared=st.sampled_from([0.0, 0.5, 0.9]))
def test_it_equals_the_published_formula(seed: int, n: int, shared: float) -> None:
    x, y = features(seed, n, shared=shared)
    expected = [printed(x[:, layer], y[:, layer]) for layer in range(2)]
    np.testing.assert_allclose(cka(x, y), expected, rtol=1e-8, atol=1e-10)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 999))
def test_with_weights_it_equals_a_loop_over_quadruples(seed: int) -> None:
    x, y = features(seed, n=7, layers=1, shared=0.5)
    (weights,) = resamples(7, 3, seed)
    weights[0] = np.random.default_rng(seed).random(7)  # any weights, not counts alone
    for found, w in zip(cka(x, y, weights), weights, strict=True):
        if (w > 0).sum() < 4:
            assert np.isnan(found[0])
            continue
        both, first, second = (by_quadruples(p[:, 0], q[:, 0], w) for p, q in ((x, y), (x, x), (y, y)))
        if first > 1e-6 and second > 1e-6:
            np.testing.assert_allclose(found[0], both / np.sqrt(first * second), rtol=1e-7)


def test_in_blocks_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = features(0, shared=0.5)
    (weights,) = resamples(30, 5, 0)
    whole = cka(x, y, weights)
    monkeypatch.setattr(similarity, "_BLOCK", 7 * 30)
    np.testing.assert_allclose(cka(x, y, weights), whole, rtol=1e-12)


@given(seed=st.integers(0, 999))
def test_rotation_scale_shift_and_the_order_of_units_do_not_matter(seed: int) -> None:
    x, y = features(seed, shared=0.6)
    generator = np.random.default_rng(seed)
    turn = np.linalg.qr(generator.normal(size=(5, 5)))[0]
    np.testing.assert_allclose(cka(x, y @ turn * 40 + 7), cka(x, y), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(cka(x, x @ turn), 1, rtol=1e-12)
    np.testing.assert_allclose(cka(x, x[:, :, generator.permutation(5)]), 1, rtol=1e-12)
    np.testing.assert_allclose(cka(y, x), cka(x, y), rtol=1e-12)
    wide = np.concatenate([y, np.zeros((30, 2, 3))], axis=2)
    np.testing.assert_allclose(cka(x, wide), cka(x, y), rtol=1e-12)
    assert (np.abs(cka(x, y)) <= 1).all()


def test_a_stretched_axis_has_the_closed_form_of_two_variances() -> None:
    """Independent axes of variance 1 and 1, and of 1 and s^2 = 9: CKA = (1 + s^2) / sqrt(2 (1 + s^4))."""
    x = np.random.default_rng(0).normal(size=(4000, 1, 2))
    expected = (1 + 9) / np.sqrt(2 * (1 + 81))
    np.testing.assert_allclose(cka(x, x * [1, 3]), expected, atol=0.02)


def test_unrelated_features_give_0_where_the_biased_estimator_does_not() -> None:
    found = [cka(*features(seed, n=40, layers=1, width=120))[0] for seed in range(40)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(40) + 1e-3
    assert np.abs(found).max() < 0.15
    x, y = (z[:, 0] - z[:, 0].mean(axis=0) for z in features(0, n=40, layers=1, width=120))
    plain = np.linalg.norm(x.T @ y) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert plain > 0.6  # Kornblith et al.'s: what is avoided


def test_a_silent_layer_and_too_few_images_have_none() -> None:
    x, y = features(0)
    silent = np.full_like(x, 0.1)
    assert np.isnan(cka(x, silent)).all()
    assert np.isnan(cka(silent, silent)).all()
    assert np.isnan(cka(x[:3], y[:3])).all()
    assert np.isfinite(cka(x[:4], y[:4])).all()
    once = np.zeros((30, 1, 2))
    once[0] = 1.0  # only the first image excites it, and it is not drawn
    weights = np.ones((1, 30))
    weights[0, 0] = 0
    assert np.isnan(cka(once, x[:, :1], weights)).all()
    weights[0, 4:] = 0
    assert np.isnan(cka(x, y, weights)).all()  # three different images


def test_the_bootstrap_covers_the_truth() -> None:
    """Two axes, y = x but for noise: the CKA of the population is known; 95 % intervals of 60 samples cover it."""
    hits = 0
    for seed in range(60):
        generator = np.random.default_rng(seed)
        x, noise = generator.normal(size=(2, 120, 1, 2))
        y = x + noise  # cov(x, y) = I, var(x) = I, var(y) = 2 I: CKA = 2 / (sqrt(2) sqrt(8)) = 0.5
        (weights,) = resamples(120, 200, seed)
        low, high = np.quantile(cka(x, y, weights), [0.025, 0.975])
        hits += low <= 0.5 <= high
    assert hits >= 52  # of 57 expected; fewer than 52 happen once in 100 at 95 %


@pytest.mark.parametrize("shape", [(30, 2), (30, 3, 5), (29, 2, 5)])
def test_other_images_or_layers_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PrunescopeError, match="images, layers, units"):
        cka(np.zeros((30, 2, 5)), np.zeros(shape))
