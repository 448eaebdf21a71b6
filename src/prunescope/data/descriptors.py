"""What can be computed about a skin lesion from its image: shape and colour after the ABCD rule, and nuisances."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prunescope.data.decode import Array
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
    Descriptor("blue-white area", 0.75, "share of the lesion that is bluish and darker than skin, 0 .. 1"),
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

#: White, red, light brown, dark brown, blue-grey, black in sRGB, 0 .. 255.
_PALETTE = np.array(
    [[235, 220, 215], [190, 80, 80], [170, 115, 85], [90, 50, 40], [100, 110, 130], [25, 20, 20]], np.uint8
)


def describe_images(images: Array) -> Array:
    """float32 (N, len(DESCRIPTORS)) of RGB images uint8 (N, 3, H, W); a row is NaN where no lesion was found."""
    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(describe, images))
    return np.array(rows, np.float32).reshape(len(images), len(DESCRIPTORS))


def describe(image: Array) -> list[float]:
    """The values of `DESCRIPTORS`, in that order, of one RGB image uint8 (3, H, W)."""
    found = segment(image)
    if found is None:
        return [float("nan")] * len(DESCRIPTORS)
    colour = lab(image)
    light = float(colour[0][found.skin].mean()) - float(colour[0][found.lesion].mean())
    return [
        *shape(found.lesion),
        *_colours(image, colour, found),
        light,
        float(colour[1][found.lesion].mean() - colour[1][found.skin].mean()),
        _fine_structure(colour[0], found.lesion),
        _step(colour[0], found.lesion) / max(light, 1.0),
        float(colour[0][found.skin].mean()),
        float((found.hair[found.skin] > 12).mean()),
    ]


def shape(lesion: Array) -> tuple[float, float, float, float]:
    """Asymmetry, border irregularity, eccentricity and size of a mask bool (H, W), as in `DESCRIPTORS`."""
    overlaps = []
    for mirrored, _ in _mirror(lesion):
        both = float((lesion & mirrored).sum())
        overlaps.append(both / float((lesion | mirrored).sum()))
    small, large = _moments(lesion)[1]
    area = float(lesion.sum())
    irregular = 1 - 4 * np.pi * area / _perimeter(lesion) ** 2
    return 1 - float(np.mean(overlaps)), max(0.0, irregular), float(np.sqrt(1 - small / large)), area / lesion.size


def lab(image: Array) -> Array:
    """CIELAB (D65), float32 (3, ...), of sRGB uint8 (3, ...).

    >>> [round(float(v), 1) + 0.0 for v in lab(np.array([255, 0, 0], np.uint8))]
    [53.2, 80.1, 67.2]
    """
    scale = np.arange(256) / 255
    linear = np.where(scale <= 0.04045, scale / 12.92, ((scale + 0.055) / 1.055) ** 2.4).astype(np.float32)[image]
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    white = np.array([0.95047, 1.0, 1.08883])[:, None]
    xyz = np.tensordot((np.array(to_xyz) / white).astype(np.float32), linear, 1)
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])]).astype(np.float32)


def binarise(values: Array, train: Array) -> tuple[Tensor, Mapping[str, float]]:
    """Concept labels int8 (N, K) (-1 where a value is NaN) and the thresholds used, fitted on rows `train` only."""
    thresholds = np.array(
        [np.nanquantile(values[train, i], descriptor.quantile) for i, descriptor in enumerate(DESCRIPTORS)], np.float32
    )
    labels = np.where(np.isnan(values), -1, values > thresholds).astype(np.int8)
    return torch.from_numpy(labels), {name: float(value) for name, value in zip(NAMES, thresholds, strict=True)}


def _colours(image: Array, colour: Array, found: Lesion) -> tuple[float, float, float, float]:
    """Effective number of colours, blue-white share, variegation, colour asymmetry."""
    inside = colour[:, found.lesion]
    away = np.stack([((inside - reference[:, None]) ** 2).sum(0) for reference in lab(_PALETTE.T).T])
    share = np.bincount(away.argmin(0), minlength=len(_PALETTE)) / inside.shape[1]
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    rgb = image[:, found.lesion].astype(np.float32)
    # Celebi et al. 2008, blue-white veil: share of blue in the colour, red relative to the surrounding skin.
    red = rgb[0] - image[0][found.skin].mean()
    blue_white = (rgb[2] >= 0.3 * np.maximum(rgb.sum(0), 1)) & (red >= -194) & (red < -51)
    differences = []
    for mirrored, source in _mirror(found.lesion):
        both = found.lesion & mirrored
        differences.append(np.linalg.norm(colour[:, both] - colour[:, source[0][both], source[1][both]], axis=0).mean())
    variegation = float(np.sqrt(inside.var(1).sum()))
    return float(np.exp(entropy)), float(blue_white.mean()), variegation, float(np.mean(differences))


def _moments(lesion: Array) -> tuple[Array, Array, Array]:
    """Middle (y, x), variances along the main axes (ascending) and these axes as columns."""
    places = np.argwhere(lesion).astype(float)
    middle = places.mean(0)
    variances, axes = np.linalg.eigh(np.cov((places - middle).T, bias=True) + np.eye(2) / 12)  # 1/12: a pixel's own
    return middle, variances, axes


def _mirror(lesion: Array) -> list[tuple[Array, tuple[Array, Array]]]:
    """For both main axes: the mirrored mask, and where (row, column) each pixel's mirror image lies."""
    middle, _, axes = _moments(lesion)
    places = np.indices(lesion.shape).reshape(2, -1) - middle[:, None]
    made = []
    for axis in axes.T:
        there = (places - 2 * np.outer(axis, axis @ places) + middle[:, None]).round().astype(int)
        limit = np.array(lesion.shape)[:, None]
        inside = ((there >= 0) & (there < limit)).all(0)
        row, column = there.clip(0, limit - 1).reshape(2, *lesion.shape)
        made.append((lesion[row, column] & inside.reshape(lesion.shape), (row, column)))
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
