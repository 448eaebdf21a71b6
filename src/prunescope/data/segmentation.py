"""Where the lesion is in a photograph of skin: threshold, largest central part, holes filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunescope.data.decode import Array

_HAIR_WIDTH = 0.05  # of the side: hairs narrower than this are closed
_SMOOTH = 0.015  # of the side: width of the blur before thresholding
_SMALLEST = 0.005  # of the image: less is no lesion
_LARGEST = 0.98


@dataclass(frozen=True, eq=False)
class Lesion:
    """Attributes: lesion, skin (bool (H, W), disjoint; black corners of the lens are neither), hair (H, W) >= 0:
    how much darker than its surroundings a thin structure is, in grey levels.
    """

    lesion: Array
    skin: Array
    hair: Array


def otsu(values: Array) -> int:
    """Threshold of uint8 values with the largest variance between the two sides (Otsu 1979): left is `<=` it.

    >>> otsu(np.array([10] * 5 + [200] * 5, np.uint8))
    10
    """
    counts = np.bincount(values.ravel(), minlength=256).astype(float)
    below = counts.cumsum()
    above = below[-1] - below
    mass = (counts * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return int(np.nanargmax(between)) if np.isfinite(between).any() else 0


def segment(image: Array) -> Lesion | None:
    """The lesion in an RGB image uint8 (3, H, W), or None when nothing stands out.

    Otsu's threshold on the blue channel, in which pigment is darkest, after hairs are closed and noise is blurred; of
    the parts below it the one with most area near the middle. Not a medical segmentation.
    """
    from scipy import ndimage

    blue = image[2]
    side = min(blue.shape)
    width = max(3, int(_HAIR_WIDTH * side) | 1)
    closed = ndimage.grey_closing(blue, size=(width, width))
    smooth = ndimage.gaussian_filter(closed.astype(np.float32), _SMOOTH * side).round().astype(np.uint8)
    seen = ~_black_corners(image)
    dark = (smooth <= otsu(smooth[seen])) & seen
    parts, count = ndimage.label(ndimage.binary_opening(dark, iterations=max(1, side // 64)))
    if not count:
        return None
    weight = ndimage.sum_labels(_central(dark.shape), parts, np.arange(1, count + 1))
    lesion = ndimage.binary_fill_holes(parts == 1 + int(np.argmax(weight)))
    skin = ~ndimage.binary_dilation(lesion | dark, iterations=max(1, side // 64)) & seen
    if not _SMALLEST <= lesion.mean() <= _LARGEST or not skin.any():
        return None
    return Lesion(lesion, skin, closed.astype(np.float32) - blue)


def _central(shape: tuple[int, ...]) -> Array:
    y, x = (np.linspace(-1, 1, n) for n in shape)
    return np.exp(-2 * (y[:, None] ** 2 + x[None, :] ** 2))


def _black_corners(image: Array) -> Array:
    """The round edge of the lens: parts almost without light that hold a corner, slightly widened."""
    from scipy import ndimage

    parts, _ = ndimage.label(image.max(0) < 70)
    corners = np.unique(parts[[0, 0, -1, -1], [0, -1, 0, -1]])
    lens = np.isin(parts, corners[corners > 0])
    return ndimage.binary_dilation(lens, iterations=4) if lens.any() else lens
