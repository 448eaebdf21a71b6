"""What a filter is selective for: colour, shape, classes. Arrays in, one number per filter out; NaN for dead filters.

A filter's activations are taken as a ReLU passes them on: what is negative counts as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from prunescope.core.errors import PrunescopeError

Array = np.ndarray[Any, np.dtype[Any]]
Form = Literal["bounded", "ivet"]

#: RGB -> opponent axes, up to constants: (R+G+B)/1.5, R-G, (R+G-2B)/2.
OPPONENT = np.array([[1 / 1.5, 1.0, 0.5], [1 / 1.5, -1.0, 0.5], [1 / 1.5, 0.0, -1.0]])
#: Below this a direction or a range of values in [0, 1] counts as none: a thousandth of a level of 8 bits.
FLAT = 1e-6


def chroma_share(kernels: Array, std: Sequence[float] = (1.0, 1.0, 1.0)) -> Array:
    """Share of a first-layer kernel's energy that is colour: |w - mean over RGB|^2 / |w|^2, 0 (grey) to 1, (F,).

    Args:
        kernels: weights (F, 3, h, w).
        std: by which the images' channels are divided before the network; it is folded in, so that the kernels are
            those that meet the pixels.

    A kernel of zeros has none: NaN.

    >>> red_green, grey = [[[1.0]], [[-1.0]], [[0.0]]], [[[2.0]], [[2.0]], [[2.0]]]
    >>> chroma_share(np.array([red_green, grey])).tolist()
    [1.0, 0.0]

    Raises:
        PrunescopeError: the kernels do not read three channels.
    """
    if kernels.ndim != 4 or kernels.shape[1] != 3:
        raise PrunescopeError(f"kernels that read RGB have shape (filters, 3, height, width), got {kernels.shape}")
    largest = np.abs(kernels).max(axis=(1, 2, 3), keepdims=True)
    scaled = kernels / np.where(largest > 0, largest, 1) / np.reshape(std, (3, 1, 1)).astype(np.float64)
    chroma = scaled - scaled.mean(axis=1, keepdims=True)
    energy = (scaled**2).sum(axis=(1, 2, 3))
    return _ratio((chroma**2).sum(axis=(1, 2, 3)), energy)


def selectivity(before: Array, after: Array, form: Form = "bounded") -> Array:
    """How much of a filter's answer to its best images goes when colour (or shape) is taken out of them, (F,).

    Rafegas & Vanrell 2018, "Color encoding in biologically-inspired convolutional neural networks".

    Args:
        before, after: activations (F, N) on the N best images, and at the same places once they were changed.
        form: "bounded" is the mean over images of 1 - min(after / before, 1), 0 to 1; an image that does not excite
            the filter is left out. "ivet" is 1 - sum(after) / sum(before): at most 1, negative where the filter
            answers more to the changed images.

    NaN where no image excites the filter.

    >>> selectivity(np.array([[4.0, 2.0]]), np.array([[1.0, 3.0]])).tolist()
    [0.375]
    """
    before, after = (np.maximum(np.asarray(item, dtype=np.float64), 0) for item in (before, after))
    if form == "ivet":
        return 1 - _ratio(after.sum(axis=1), before.sum(axis=1))
    excited = before > 0
    lost = 1 - np.minimum(after / np.where(excited, before, 1), 1)
    return _ratio((lost * excited).sum(axis=1), excited.sum(axis=1))


def grey(crops: Array) -> Array:
    """Crops without colour: pixels projected on the first principal component of each crop in opponent space.

    Unlike a mean over RGB this keeps the contrast between colours of one lightness (Rafegas & Vanrell 2018). The
    projection is oriented from dark to light and scaled to the crop's own range of values, so a grey crop stays as it
    is. A crop of one colour becomes the mean of its channels.

    Args:
        crops: RGB in [0, 1], (..., h, w, 3).

    Returns:
        float64 of the same shape, three equal channels.
    """
    pixels = np.asarray(crops, dtype=np.float64).reshape(*crops.shape[:-3], -1, 3)
    opponent = pixels @ OPPONENT
    opponent -= opponent.mean(axis=-2, keepdims=True)
    axis = np.linalg.eigh(np.swapaxes(opponent, -1, -2) @ opponent)[1][..., -1]  # eigenvalues ascend
    lead = np.take_along_axis(axis, np.argmax(np.abs(axis) > FLAT, axis=-1)[..., None], axis=-1)
    values = (opponent @ (axis * np.sign(lead))[..., None])[..., 0]
    low, high = (way(pixels, axis=(-2, -1))[..., None] for way in (np.min, np.max))
    least, most = (way(values, axis=-1, keepdims=True) for way in (np.min, np.max))
    some = most - least > FLAT
    stretched = low + (values - least) / np.where(some, most - least, 1) * (high - low)
    plain = np.where(some, stretched, pixels.mean(axis=-1))
    return np.repeat(plain[..., None], 3, axis=-1).reshape(crops.shape)


def shuffled(crop: Array, generator: np.random.Generator) -> Array:
    """A crop (h, w, C) with its pixels in random order: the same colours, no shape."""
    pixels = crop.reshape(-1, crop.shape[-1])
    return pixels[generator.permutation(len(pixels))].reshape(crop.shape)


def class_selectivity(activations: Array, labels: Array, cover: float) -> Array:
    """(N - M) / (N - 1), 0 to 1: M is the fewest classes that hold a share `cover` of the answer to the N best images.

    Rafegas, Vanrell, Alexandre & Arias 2020, "Understanding trained CNNs by indexing neuron selectivity". 1: one class
    is enough; images of as many classes give about 1 - cover. Their code takes `cover` = 0.1 with 100 images; with ten
    images or less that is one image, and says nothing.

    Args:
        activations, labels: (F, N), of the best images; N counts those that excite the filter, and fewer than two
            give NaN.
        cover: above 0, up to 1.

    >>> class_selectivity(np.ones((2, 4)), np.array([[5, 5, 5, 1], [1, 2, 3, 4]]), 0.75).tolist()
    [1.0, 0.3333333333333333]
    """
    if not 0 < cover <= 1:
        raise PrunescopeError(f"`cover` is a share above 0 and up to 1, got {cover}")
    weights = np.maximum(np.asarray(activations, dtype=np.float64), 0)
    codes = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    shares = np.zeros((len(weights), int(codes.max(initial=0)) + 1))
    np.add.at(shares, (np.arange(len(weights))[:, None], codes), weights)
    covered = np.cumsum(-np.sort(-shares, axis=1), axis=1)
    fewest = 1 + (covered < (cover - 1e-9) * weights.sum(axis=1, keepdims=True)).sum(axis=1)
    images = (weights > 0).sum(axis=1)
    return _ratio(images - fewest, images - 1)


def class_selectivity_of_means(means: Array) -> Array:
    """(largest - mean of the others) / (largest + mean of the others) of the class means (F, C) of activations, (F,).

    Morcos et al. 2018, "On the importance of single directions for generalization": 0 (no class stands out) to 1 (only
    one class excites the filter). NaN where none does, or with one class.
    """
    if means.shape[1] < 2:
        return np.full(len(means), np.nan)
    values = np.sort(np.maximum(np.asarray(means, dtype=np.float64), 0), axis=1)
    most, rest = values[:, -1], values[:, :-1].mean(axis=1)
    return _ratio(most - rest, most + rest)


def _ratio(part: Array, whole: Array) -> Array:
    """NaN where there is no whole."""
    found: Array = np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
    return found
