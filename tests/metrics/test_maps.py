"""Distances between heat maps against scipy and naive loops over the definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from prunescope.core.errors import PrunescopeError
from prunescope.metrics import maps
from prunescope.metrics.families import FAMILIES

Array = np.ndarray[Any, np.dtype[Any]]
ALL = {distance.name: distance for distance in FAMILIES["maps"]}


def random_maps(*shape: int, seed: int = 0) -> Array:
    """Maps as Grad-CAM makes them: non-negative, about a third exactly zero, with ties among the rest."""
    drawn = np.random.default_rng(seed).normal(0.3, 0.8, size=shape)
    return np.maximum(drawn, 0).round(1)


@pytest.mark.parametrize("shape", [(6, 8, 8), (6, 5, 9), (4, 2, 2)])
def test_correlations_equal_scipys(shape: tuple[int, ...]) -> None:
    a, b = random_maps(*shape), random_maps(*shape, seed=1)
    for k, (x, y) in enumerate(zip(a, b, strict=True)):
        assert maps.pearson(a, b)[k] == pytest.approx(stats.pearsonr(x.ravel(), y.ravel()).statistic, abs=1e-12)
        assert maps.spearman(a, b)[k] == pytest.approx(stats.spearmanr(x.ravel(), y.ravel()).statistic, abs=1e-12)


def naive_ssim(x: Array, y: Array) -> float:
    """Wang et al. 2004, eq. 13, in their notation, window after window."""
    x, y = x / x.max(), y / y.max()
    side = min(7, *(s if s % 2 else s - 1 for s in x.shape))
    c1, c2 = 0.01**2, 0.03**2
    found = []
    for i in range(x.shape[0] - side + 1):
        for j in range(x.shape[1] - side + 1):
            p, q = x[i : i + side, j : j + side].ravel(), y[i : i + side, j : j + side].ravel()
            covariance = np.cov(p, q) if side > 1 else np.zeros((2, 2))
            top = (2 * p.mean() * q.mean() + c1) * (2 * covariance[0, 1] + c2)
            bottom = (p.mean() ** 2 + q.mean() ** 2 + c1) * (covariance[0, 0] + covariance[1, 1] + c2)
            found.append(top / bottom)
    return float(np.mean(found))


@pytest.mark.parametrize("shape", [(5, 8, 8), (5, 7, 7), (5, 6, 11), (5, 14, 14), (5, 2, 2), (5, 4, 3)])
def test_ssim_equals_a_loop_over_windows(shape: tuple[int, ...]) -> None:
    a, b = random_maps(*shape) + 0.1, random_maps(*shape, seed=1) + 0.1
    expected = [naive_ssim(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(maps.ssim(a, b), expected, atol=1e-10)


def naive_iou(x: Array, y: Array) -> float:
    count = int(np.ceil(0.2 * x.size))
    tops = [set(sorted(range(x.size), key=lambda i: (-m.ravel()[i], i))[:count]) for m in (x, y)]
    return len(tops[0] & tops[1]) / len(tops[0] | tops[1])


@pytest.mark.parametrize("shape", [(8, 8, 8), (8, 5, 5), (8, 1, 3)])
def test_iou_takes_the_exact_count_and_ties_by_position(shape: tuple[int, ...]) -> None:
    a, b = random_maps(*shape) + 0.1, random_maps(*shape, seed=1) + 0.1
    expected = [naive_iou(x, y) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(maps.iou20(a, b), expected, atol=1e-12)


def test_iou_by_hand() -> None:
    a, b = np.zeros((1, 5, 4)), np.zeros((1, 5, 4))  # the top 20 % are 4 of 20 pixels
    a[0, 0] = [4, 3, 2, 1]
    b[0, 0, :2] = b[0, 4, 2:] = 1
    assert maps.iou20(a, b)[0] == pytest.approx(2 / 6)


def test_shift_by_hand() -> None:
    a, b = np.zeros((2, 3, 4)), np.zeros((2, 3, 4))
    a[:, 0, 0] = 1
    b[0, 0, 3] = 7
    b[1, [0, 2], [0, 2]] = 1  # centre halfway: one pixel down, one to the right
    np.testing.assert_allclose(maps.shift(a, b), [3 / 5, np.sqrt(2) / 5], atol=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_blank_maps_are_nan_and_do_not_touch_others(name: str) -> None:
    function = ALL[name].function
    a, b = random_maps(6, 8, 8).astype(np.float16), random_maps(6, 8, 8, seed=1).astype(np.float16)
    whole = function(a, b)
    a[1], b[2], a[3], b[3] = np.nan, 0, np.nan, np.nan
    found = function(a, b)
    assert np.isnan(found).tolist() == [False, True, True, True, False, False]
    np.testing.assert_allclose(found[[0, 4, 5]], whole[[0, 4, 5]], rtol=1e-12)
    assert found.dtype == np.float64
    assert function(a[:0], b[:0]).shape == (0,)


def test_constant_maps_have_no_correlation() -> None:
    a, b = np.full((1, 4, 4), 0.3), random_maps(1, 4, 4)
    for function in (maps.pearson, maps.spearman):
        assert np.isnan(function(a, b)).all()
        assert np.isnan(function(b, a)).all()
    assert np.isfinite(maps.ssim(a, b)).all()
    assert maps.shift(a, a)[0] == 0


@pytest.mark.parametrize("name", ALL)
def test_maps_of_different_resolution_are_refused(name: str) -> None:
    with pytest.raises(PrunescopeError, match="equal shapes"):
        ALL[name].function(np.ones((2, 8, 8)), np.ones((2, 4, 4)))


heat = arrays(np.float64, (3, 4, 5), elements=st.integers(0, 20).map(float)).filter(
    lambda m: bool((m.max(axis=(1, 2)) > m.min(axis=(1, 2))).all())
)


@settings(max_examples=60, deadline=None)
@given(heat, heat, st.sampled_from([0.125, 0.5, 3.0, 1000.0]))
def test_laws_of_all_map_distances(a: Array, b: Array, scale: float) -> None:
    for name, distance in ALL.items():
        found = distance.function(a, b)
        low, high = distance.range
        assert ((found >= low - 1e-12) & (found <= high + 1e-12)).all(), name
        np.testing.assert_allclose(found, distance.function(b, a), atol=1e-12, err_msg=f"{name}: symmetric")
        np.testing.assert_allclose(found, distance.function(a, b * scale), atol=1e-9, err_msg=f"{name}: scale")
        same = 1.0 if distance.higher_is_better else 0.0
        np.testing.assert_allclose(distance.function(a, a), same, atol=1e-12, err_msg=f"{name}: identical")
        if name != "iou20":  # there ties go by position
            mirrored = distance.function(a[:, :, ::-1], b[:, :, ::-1])
            np.testing.assert_allclose(found, mirrored, atol=1e-12, err_msg=f"{name}: mirrored")
    order = [2, 0, 1]
    np.testing.assert_array_equal(maps.iou20(a, b)[order], maps.iou20(a[order], b[order]))


@settings(max_examples=30, deadline=None)
@given(heat, heat)
def test_spearman_knows_only_the_order(a: Array, b: Array) -> None:
    np.testing.assert_allclose(maps.spearman(a, b), maps.spearman(a, (b / 20) ** 3), atol=1e-12)
