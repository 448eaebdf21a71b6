"""What can be computed about a skin lesion from its image: shape and colour after the ABCD rule, and nuisances."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prunescope.data.decode import Array, workers
from prunescope.data.segmentation import Lesion, segment


@dataclass(frozen=True)
class Descriptor:
    """A number computed from the image.

    Attributes:
        name: the concept is called `NAME (descriptor)`.
        quantile: of the training images, above which the concept counts as present.
        meaning: what is computed, with unit and range.
    """

    name: str
    quantile: float
    meaning: str


DESCRIPTORS = (
    Descriptor("asymmetry high", 0.5, "1 - overlap (IoU) with the mirror image, mean over both main axes, 0 .. 1"),
    Descriptor("border irregular", 0.5, "1 - 4 pi area / perimeter^2, 0 for a disc, below 1"),
    Descriptor("elongated", 0.5, "eccentricity of the ellipse of equal second moments, 0 for a disc .. 1"),
    Descriptor("lesion large", 0.5, "share of the image, 0 .. 1"),
    Descriptor("many colours", 0.5, "exp(entropy) of the shares of six colours (ABCD rule), 1 .. 6"),
    Descriptor("blue-white area", 0.85, "share of the lesion that is bluish and darker than skin, 0 .. 1"),
    Descriptor("colour variegated", 0.5, "standard deviation of colour within the lesion, CIELAB units"),
    Descriptor("colour asymmetric", 0.5, "mean colour difference from the mirror image, CIELAB units"),
    Descriptor("dark", 0.5, "lightness of the skin minus that of the lesion, CIELAB L*"),
    Descriptor("red", 0.5, "redness of the lesion minus that of the skin, CIELAB a*"),
    Descriptor("fine structure", 0.5, "standard deviation of lightness at details of about 2 % of the side, CIELAB L*"),
    Descriptor("border sharp", 0.5, "step of lightness across the border, divided by `dark`"),
    Descriptor("skin light", 0.5, "lightness of the skin around the lesion, CIELAB L*; not about the lesion"),
    Descriptor("hair", 0.75, "share of the skin under thin dark structures, 0 .. 1; not about the lesion"),
)
NAMES = tuple(f"{descriptor.name} (descriptor)" for descriptor in DESCRIPTORS)

#: A mask mirrored at an axis, and row and column of every pixel's mirror image.
Mirror = tuple[Array, Array, Array]


def describe_images(images: Array) -> Array:
    """float32 (N, len(DESCRIPTORS)) of RGB images uint8 (N, 3, H, W); a row is NaN where no lesion was found."""
    with ThreadPoolExecutor(workers()) as pool:
        rows = list(pool.map(describe, images))
    return np.array(rows, np.float32).reshape(len(images), len(DESCRIPTORS))


def describe(image: Array) -> list[float]:
    """The values of `DESCRIPTORS`, in that order, of one RGB image uint8 (3, H, W)."""
    found = segment(image)
    if found is None:
        return [float("nan")] * len(DESCRIPTORS)
    colour, mirrors = lab(image), _mirror(found.lesion)
    light = float(colour[0][found.skin].mean()) - float(colour[0][found.lesion].mean())
    return [
        *shape(found.lesion, mirrors),
        *_colours(image, colour, found),
        _colour_asymmetry(colour, found.lesion, mirrors),
        light,
        float(colour[1][found.lesion].mean() - colour[1][found.skin].mean()),
        _fine_structure(colour[0], found.lesion),
        _step(colour[0], found.lesion) / max(light, 1.0),
        float(colour[0][found.skin].mean()),
        float((found.hair[found.skin] > 12).mean()),
    ]


def shape(lesion: Array, mirrors: list[Mirror] | None = None) -> tuple[float, float, float, float]:
    """Asymmetry, border irregularity, eccentricity and size of a mask bool (H, W), as in `DESCRIPTORS`."""
    mirrors = _mirror(lesion) if mirrors is None else mirrors
    overlaps = [(lesion & mirrored).sum() / (lesion | mirrored).sum() for mirrored, _, _ in mirrors]
    small, large = _moments(lesion)[1]
    area = float(lesion.sum())
    irregular = 1 - 4 * np.pi * area / _perimeter(lesion) ** 2
    return 1 - float(np.mean(overlaps)), max(0.0, irregular), float(np.sqrt(1 - small / large)), area / lesion.size


def lab(image: Array) -> Array:
    """CIELAB (D65), float32 (3, ...), of sRGB uint8 (3, ...).

    >>> [round(float(v), 1) + 0.0 for v in lab(np.array([255, 0, 0], np.uint8))]
    [53.2, 80.1, 67.2]
    """
    linear = _LINEAR[image]
    xyz = np.tensordot(_TO_XYZ, linear, 1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * np.float32(1 / (3 * (6 / 29) ** 2)) + np.float32(4 / 29))
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


_SCALE = np.arange(256) / 255
_LINEAR = np.where(_SCALE <= 0.04045, _SCALE / 12.92, ((_SCALE + 0.055) / 1.055) ** 2.4).astype(np.float32)
_WHITE = np.array([[0.95047], [1.0], [1.08883]])
_TO_XYZ = (
    np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
    / _WHITE
).astype(np.float32)

#: White, red, light brown, dark brown, blue-grey, black in sRGB, 0 .. 255.
_PALETTE = np.array(
    [[235, 220, 215], [190, 80, 80], [170, 115, 85], [90, 50, 40], [100, 110, 130], [25, 20, 20]], np.uint8
)
_LAB_PALETTE = lab(_PALETTE.T)


def binarise(values: Array, train: Array) -> tuple[Tensor, Mapping[str, float]]:
    """Concept labels int8 (N, K) (-1 where a value is NaN) and the thresholds used, fitted on rows `train` only."""
    thresholds = np.array(
        [np.nanquantile(values[train, i], descriptor.quantile) for i, descriptor in enumerate(DESCRIPTORS)], np.float32
    )
    labels = np.where(np.isnan(values), -1, values > thresholds).astype(np.int8)
    return torch.from_numpy(labels), {name: float(value) for name, value in zip(NAMES, thresholds, strict=True)}


def _colours(image: Array, colour: Array, found: Lesion) -> tuple[float, float, float]:
    """Effective number of colours, blue-white share, variegation."""
    inside = colour[:, found.lesion]
    # |a - b|^2 without |a|^2, which is the same for every colour of the palette.
    away = (_LAB_PALETTE**2).sum(0)[:, None] - 2 * (_LAB_PALETTE.T @ inside)
    share = np.bincount(away.argmin(0), minlength=_LAB_PALETTE.shape[1]) / inside.shape[1]
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    rgb = image[:, found.lesion].astype(np.float32)
    # Celebi et al. 2008, blue-white veil: share of blue in the colour, red relative to the surrounding skin.
    red = rgb[0] - image[0][found.skin].mean()
    blue_white = (rgb[2] >= 0.3 * np.maximum(rgb.sum(0), 1)) & (red >= -194) & (red < -51)
    variegation = float(np.sqrt(inside.var(1).sum()))
    return float(np.exp(entropy)), float(blue_white.mean()), variegation


def _colour_asymmetry(colour: Array, lesion: Array, mirrors: list[Mirror]) -> float:
    """Mean over both axes of the colour difference between a pixel and its mirror image, where both are lesion."""
    differences = []
    for mirrored, row, column in mirrors:
        both = lesion & mirrored
        step = colour[:, both] - colour[:, row[both], column[both]]
        differences.append(float(np.sqrt((step**2).sum(0)).mean()) if both.any() else 0.0)
    return float(np.mean(differences))


def _moments(lesion: Array) -> tuple[Array, Array, Array]:
    """Middle (y, x), variances along the main axes (ascending) and these axes as columns."""
    places = np.argwhere(lesion).astype(float)
    middle = places.mean(0)
    away = places - middle
    variances, axes = np.linalg.eigh(away.T @ away / len(away) + np.eye(2) / 12)  # 1/12: a pixel's own
    return middle, variances, axes


def _mirror(lesion: Array) -> list[Mirror]:
    """For both main axes: the mirrored mask, and row and column of every pixel's mirror image."""
    middle, _, axes = _moments(lesion)
    y, x = np.ogrid[: lesion.shape[0], : lesion.shape[1]]
    y, x = y - middle[0], x - middle[1]
    made = []
    for axis in axes.T:
        along = 2 * (axis[0] * y + axis[1] * x)
        row = np.rint(y - axis[0] * along + middle[0]).astype(np.int32)
        column = np.rint(x - axis[1] * along + middle[1]).astype(np.int32)
        inside = (row >= 0) & (row < lesion.shape[0]) & (column >= 0) & (column < lesion.shape[1])
        row, column = row.clip(0, lesion.shape[0] - 1), column.clip(0, lesion.shape[1] - 1)
        made.append((lesion[row, column] & inside, row, column))
    return made


def _perimeter(lesion: Array) -> float:
    """Length of the outline in pixels: total variation of the slightly blurred mask (co-area formula)."""
    from scipy import ndimage

    padded = np.pad(lesion, 8).astype(np.float32)
    return float(ndimage.gaussian_gradient_magnitude(padded, 1.5).sum())


def _fine_structure(lightness: Array, lesion: Array) -> float:
    from scipy import ndimage

    fine = lightness - ndimage.gaussian_filter(lightness, 0.02 * min(lesion.shape))
    inner = ndimage.binary_erosion(lesion, iterations=2)
    return float(fine[inner if inner.any() else lesion].std())


def _step(lightness: Array, lesion: Array) -> float:
    """Lightness just outside minus just inside the border (a ring of 3 % of the side each)."""
    from scipy import ndimage

    width = max(1, round(0.03 * min(lesion.shape)))
    outer = ndimage.binary_dilation(lesion, iterations=width) & ~lesion
    inner = lesion & ~ndimage.binary_erosion(lesion, iterations=width, border_value=1)
    return float(lightness[outer].mean() - lightness[inner].mean()) if outer.any() and inner.any() else 0.0
