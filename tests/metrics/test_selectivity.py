"""Selectivity beside its definitions, written as loops, and its invariants."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from prunescope.core.errors import PrunescopeError
from prunescope.metrics.selectivity import (
    chroma_share,
    class_selectivity,
    class_selectivity_of_means,
    grey,
    selectivity,
    shuffled,
)

Array = np.ndarray[Any, Any]
STD = (0.229, 0.224, 0.225)


def test_chroma_of_known_kernels() -> None:
    shape = np.random.default_rng(0).normal(size=(5, 7))
    kernels = np.stack([
        np.stack([shape] * 3), np.stack([shape, -shape, 0 * shape]), np.stack([-shape, -shape, 2 * shape]),
        np.stack([shape, 0 * shape, 0 * shape]), np.zeros((3, 5, 7)),
    ])  # fmt: skip
    np.testing.assert_allclose(chroma_share(kernels), [0, 1, 1, 2 / 3, np.nan], atol=1e-15)
    folded = kernels * np.reshape(STD, (3, 1, 1))
    np.testing.assert_allclose(chroma_share(folded, STD), [0, 1, 1, 2 / 3, np.nan], atol=1e-12)
    assert (chroma_share(folded)[:3] != [0, 1, 1]).all()
    with pytest.raises(PrunescopeError, match=r"\(filters, 3, height, width\), got \(2, 1, 3, 3\)"):
        chroma_share(np.ones((2, 1, 3, 3)))


@given(arrays(np.float64, (3, 3, 2, 2), elements=st.floats(-1e3, 1e3)), st.sampled_from([1e-30, 0.1, 1e8]))
def test_chroma_is_a_share_of_what_the_kernel_has(kernels: Array, scale: float) -> None:
    kernels = np.where(np.abs(kernels) < 1e-3, 0, kernels)
    share = chroma_share(kernels, STD)
    for kernel, got in zip(kernels, share, strict=True):
        weight = [[kernel[c, i, j] / STD[c] for c in range(3)] for i in range(2) for j in range(2)]
        energy = sum(w * w for pixel in weight for w in pixel)
        chroma = sum((w - sum(pixel) / 3) ** 2 for pixel in weight for w in pixel)
        np.testing.assert_allclose(got, chroma / energy if energy else np.nan, atol=1e-12)
    np.testing.assert_allclose(chroma_share(scale * kernels, STD), share, atol=1e-12)


def naive_index(before: list[float], after: list[float], form: str) -> float:
    pairs = [(max(w, 0), max(v, 0)) for w, v in zip(before, after, strict=True)]
    if not any(w for w, _ in pairs):
        return float("nan")
    if form == "ivet":
        return 1 - sum(v for _, v in pairs) / sum(w for w, _ in pairs)
    lost = [1 - min(max(v / w, 0), 1) for w, v in pairs if w > 0]
    return sum(lost) / len(lost)


activations = arrays(
    np.float64, (4, 5), elements=st.one_of(st.just(0.0), st.floats(-10, 10).map(lambda x: round(x, 3)))
)


@given(activations, activations, st.sampled_from(["bounded", "ivet"]))
def test_the_index_is_its_definition(before: Array, after: Array, form: Any) -> None:
    found = selectivity(before, after, form)
    expected = [naive_index(w, v, form) for w, v in zip(before.tolist(), after.tolist(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(selectivity(7 * before, 7 * after, form), found, atol=1e-9)
    np.testing.assert_allclose(selectivity(before, before, form), np.where(np.isnan(found), np.nan, 0), atol=1e-12)
    if form == "bounded":
        assert np.nanmax(found, initial=0) <= 1
        assert np.nanmin(found, initial=0) >= 0


def test_images_are_paired_not_sorted() -> None:
    """nefesi sorts the changed activations before it pairs them, and gives dead filters 0."""
    assert selectivity(np.array([[4.0, 2.0]]), np.array([[1.0, 2.0]]))[0] == 0.375
    assert selectivity(np.array([[4.0, 2.0]]), np.array([[2.0, 1.0]]))[0] == 0.5
    assert np.isnan(selectivity(np.array([[0.0, -1.0]]), np.array([[0.0, 5.0]])))[0]


def naive_grey(crop: Array) -> Array:
    """As the paper says it, for one crop; the sign and the range as our docstring says."""
    r, g, b = crop[..., 0], crop[..., 1], crop[..., 2]
    opponent = np.stack([(r + g + b - 1.5) / 1.5, r - g, (r + g - 2 * b) / 2], axis=-1).reshape(-1, 3)
    values, vectors = np.linalg.eig(np.cov(opponent.T))
    axis = vectors[:, np.argmax(values)]
    projected = opponent @ (axis if axis[0] > 0 else -axis)
    scaled = (projected - projected.min()) / (projected.max() - projected.min())
    plain = (crop.min() + scaled * (crop.max() - crop.min())).reshape(crop.shape[:2])
    return np.stack([plain] * 3, axis=-1)


@given(st.integers(0, 10_000), st.integers(2, 9), st.integers(2, 9))
@settings(max_examples=40)
def test_grey_is_the_projection_on_the_first_principal_component(seed: int, h: int, w: int) -> None:
    crops = np.random.default_rng(seed).random((3, h, w, 3))
    found = grey(crops)
    for crop, got in zip(crops, found, strict=True):
        np.testing.assert_allclose(got, naive_grey(crop), atol=1e-9)
        np.testing.assert_allclose(grey(crop), got, atol=1e-12)
    np.testing.assert_allclose(found.min((1, 2, 3)), crops.min((1, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(found.max((1, 2, 3)), crops.max((1, 2, 3)), atol=1e-12)


@given(arrays(np.float64, (4, 3, 1), elements=st.integers(0, 255).map(lambda v: v / 255)))
def test_a_grey_crop_stays_as_it_is(plain: Array) -> None:
    crop = np.repeat(plain, 3, axis=-1)
    np.testing.assert_allclose(grey(crop), crop, atol=1e-9)


def test_contrast_between_colours_of_one_lightness_is_kept() -> None:
    crop = np.zeros((2, 4, 3))
    crop[:, :2, 0] = crop[:, 2:, 1] = 0.6  # red beside green: the mean over RGB is flat
    assert np.ptp(crop.mean(axis=-1)) == 0
    assert np.ptp(grey(crop)) == pytest.approx(0.6)


def test_a_crop_of_one_colour_is_its_mean() -> None:
    crop = np.full((2, 3, 3), [0.9, 0.3, 0.0])
    np.testing.assert_allclose(grey(crop), np.full((2, 3, 3), 0.4))
    np.testing.assert_allclose(grey(crop[:1, :1]), np.full((1, 1, 3), 0.4))


def test_shuffling_moves_whole_pixels() -> None:
    crop = np.arange(60).reshape(4, 5, 3)
    one, two, again = (shuffled(crop, np.random.default_rng(seed)) for seed in (0, 1, 0))
    assert (one != two).any()
    assert (one != crop).any()
    assert (one == again).all()
    assert sorted(map(tuple, one.reshape(-1, 3))) == sorted(map(tuple, crop.reshape(-1, 3)))


def naive_class_selectivity(weights: list[float], labels: list[int], cover: float) -> float:
    pairs = [(w, c) for w, c in zip(weights, labels, strict=True) if w > 0]
    if len(pairs) < 2:
        return float("nan")
    shares: Counter[int] = Counter()
    for w, c in pairs:
        shares[c] += w / sum(w for w, _ in pairs)  # type: ignore[assignment]
    total, fewest = 0.0, 0
    for _, share in shares.most_common():
        total, fewest = total + share, fewest + 1
        if total >= cover - 1e-9:
            break
    return (len(pairs) - fewest) / (len(pairs) - 1)


@given(activations, arrays(np.int64, (4, 5), elements=st.integers(0, 3)), st.sampled_from([0.1, 0.5, 1.0]))
def test_class_selectivity_is_its_definition(weights: Array, labels: Array, cover: float) -> None:
    found = class_selectivity(weights, labels, cover)
    expected = [naive_class_selectivity(w, c, cover) for w, c in zip(weights.tolist(), labels.tolist(), strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(class_selectivity(weights, labels * 100 + 7, cover), found, atol=1e-12)


def test_class_selectivity_needs_a_share() -> None:
    with pytest.raises(PrunescopeError, match="above 0 and up to 1, got 0"):
        class_selectivity(np.ones((1, 2)), np.ones((1, 2), dtype=int), 0)


@given(arrays(np.float64, (3, 4), elements=st.floats(0, 10).map(lambda x: round(x, 3))))
def test_class_selectivity_of_means_is_its_definition(means: Array) -> None:
    expected = []
    for row in means.tolist():
        most = max(row)
        rest = (sum(row) - most) / (len(row) - 1)
        expected.append((most - rest) / (most + rest) if most + rest else np.nan)
    np.testing.assert_allclose(class_selectivity_of_means(means), expected, atol=1e-9)


def test_class_selectivity_of_means_at_its_ends() -> None:
    found = class_selectivity_of_means(np.array([[0.0, 3.0, 0.0], [2.0, 2.0, 2.0], [0.0, 0.0, -1.0]]))
    np.testing.assert_allclose(found, [1, 0, np.nan])
    assert np.isnan(class_selectivity_of_means(np.ones((2, 1)))).all()
