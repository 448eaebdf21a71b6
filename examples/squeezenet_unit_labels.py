"""Labels for `squeezenet_units.py`: groups of classes, and what pixels show, computed from the pixels alone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad

import prunescope as ps
from prunescope.data.segments import Coded, Segments, smallest

#: A partition of ImageNet's classes, as ranges of their order; what is in none of them is a thing.
GROUPS = {
    "dog": [(151, 269)], "other mammal": [(101, 107), (147, 151), (269, 300), (330, 389)],
    "bird": [(7, 25), (80, 101), (127, 147)], "reptile or amphibian": [(25, 69)],
    "insect or spider": [(69, 80), (300, 327)], "other animal": [(0, 7), (107, 127), (327, 330), (389, 398)],
    "food": [(924, 970)], "landscape or plant": [(970, 1000)], "thing": [(398, 924)],
}  # fmt: skip
#: The eleven basic colour terms (Berlin and Kay 1969), by the rules in `_colours`.
COLOURS = ("black", "white", "grey", "brown", "pink", "red", "orange", "yellow", "green", "blue", "purple")
#: {category: concepts}; a pixel has a colour, and of each other category one concept or none.
CONCEPTS = {
    "colour": COLOURS,
    "brightness": ("darkest tenth", "brightest tenth"),
    "saturation": ("dullest tenth", "most vivid tenth"),
    "texture": ("smoothest tenth", "roughest tenth"),
    "orientation": ("horizontal edges", "falling edges", "vertical edges", "rising edges"),
}
#: Where the hue of a saturated pixel leaves red, orange, ...: degrees.
HUES = {"orange": 15, "yellow": 42, "green": 70, "blue": 165, "purple": 255, "pink": 290, "red": 345}
LUMA = (0.299, 0.587, 0.114)
SOBEL = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
#: Sides of the windows in which edges are averaged: for texture, and for orientation.
WINDOW, NEAR = 9, 5
#: Pixels a side of the images that are labelled.
HALF = 114


def grouped(split: ps.Split) -> Tensor:
    """Position in `GROUPS` of every image's class (N,)."""
    found = [
        [any(low <= y < high for low, high in ranges) for ranges in GROUPS.values()].index(True) for y in split.labels
    ]
    return torch.tensor(found)


def shrunk(split: ps.Split, side: int) -> Tensor:
    """The images as uint8 (N, 3, side, side)."""
    parts = [
        interpolate(part.float(), (side, side), mode="bilinear", antialias=True).round().clamp(0, 255).byte()
        for part in split.images[:].split(50)
    ]
    return torch.cat(parts)


def half_size(split: ps.Split) -> ps.Split:
    """The images at half size, with labels of their pixels: no map of the network is finer."""
    images = shrunk(split, HALF)
    return replace(split, images=images, segments=pixel_labels(images))


def pixel_labels(images: Tensor) -> Segments:
    """Labels of the pixels of uint8 images (N, 3, H, W). Tenths are of all pixels of all images."""
    parts = [_measured(part.float() / 255) for part in images.split(20)]
    colour, luma, chroma, rough, edges = (torch.cat(items) for items in zip(*parts, strict=True))
    codes = colour.long() - 1  # every pixel has a colour
    for own in (*(_tails(values) for values in (luma, chroma, rough)), edges):
        codes = codes * 5 + own  # at most four concepts, or none
    present, codes = codes.unique(return_inverse=True)
    table = torch.stack([_one_of(present, place) for place in range(len(CONCEPTS))])
    names = [(name, kind) for kind, some in CONCEPTS.items() for name in some]
    sets = torch.cat([_columns(row, len(some)) for row, some in zip(table, CONCEPTS.values(), strict=True)], 1)
    made = Coded(smallest(codes, len(sets)), sets, torch.ones(len(sets), dtype=torch.bool))
    return Segments(*zip(*names, strict=True), tuple(codes.shape), partial(_given, made))  # type: ignore[arg-type]


def _given(made: Coded) -> Coded:
    return made


def _one_of(codes: Tensor, place: int) -> Tensor:
    """Which concept of the category at `place` a code holds, from 1 on; 0: none."""
    left = codes // 5 ** (len(CONCEPTS) - 1 - place)
    return left + 1 if place == 0 else left % 5


def _columns(row: Tensor, concepts: int) -> Tensor:
    return row[:, None] == torch.arange(1, concepts + 1)


def _measured(x: Tensor) -> tuple[Tensor, ...]:
    """Of images (B, 3, H, W) in [0, 1]: colour, luma, chroma, how dense edges are around, and which way they run."""
    luma = (x * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    across, down = (conv2d(pad(luma, (1, 1, 1, 1), "replicate"), k[None, None]) for k in (SOBEL, SOBEL.T))
    size = (across.square() + down.square()).sqrt()
    chroma = x.amax(1) - x.amin(1)
    return _colours(x), luma[:, 0], chroma, _around(size, WINDOW)[:, 0], _edges(across, down)


def _around(x: Tensor, side: int) -> Tensor:
    return avg_pool2d(x, side, 1, side // 2, count_include_pad=False)


def _edges(across: Tensor, down: Tensor) -> Tensor:
    """1 to 4: horizontal, falling, vertical, rising, within 22.5 degrees, where the structure tensor is coherent (above
    0.6) and the root of its trace is above 0.05 (of 1 for black beside white); else 0."""
    xx, yy, xy = (_around(a * b, NEAR)[:, 0] for a, b in ((across, across), (down, down), (across, down)))
    energy = xx + yy
    coherent = ((xx - yy).square() + 4 * xy.square()).sqrt() > 0.6 * energy
    gradient = torch.rad2deg(torch.atan2(2 * xy, xx - yy) / 2)  # of the gradient; y points down
    way = ((gradient + 90 + 22.5) % 180 / 45).long() % 4  # the edge runs across it: 0 horizontal, 1 falling ...
    return torch.where(coherent & (energy.sqrt() > 0.05), way + 1, 0)


def _tails(values: Tensor) -> Tensor:
    """1 for the smallest tenth of all, 2 for the largest, else 0. Of equal values at a cut none is taken."""
    ordered = values.flatten()[::97].sort().values
    low, high = ordered[len(ordered) // 10], ordered[-len(ordered) // 10]
    return torch.where(values < low, 1, torch.where(values > high, 2, 0))


def _colours(x: Tensor) -> Tensor:
    """Position in `COLOURS`, from 1 on (B, H, W), by hue h (degrees), saturation s and value v of HSV, the first that
    fits: black v < 0.15; white s < 0.12 and v > 0.85; grey s < 0.15; brown 10 <= h < 42 and v < 0.7, or s < 0.45 there
    and v < 0.85; pink (h < 15 or h >= 345), s < 0.55 and v > 0.75; else `HUES`."""
    value, least = x.amax(1), x.amin(1)
    chroma = (value - least).clamp_min(1e-6)
    saturation = (value - least) / value.clamp_min(1e-6)
    red, green, blue = x.unbind(1)
    hue = torch.where(value == red, (green - blue) / chroma % 6, (blue - red) / chroma + 2)
    hue = 60 * torch.where((value == blue) & (value != red) & (value != green), (red - green) / chroma + 4, hue)
    reddish = (hue < 15) | (hue >= 345)
    rules = {
        "black": value < 0.15, "white": (saturation < 0.12) & (value > 0.85), "grey": saturation < 0.15,
        "brown": (hue >= 10) & (hue < 42) & ((value < 0.7) | ((saturation < 0.45) & (value < 0.85))),
        "pink": reddish & (saturation < 0.55) & (value > 0.75),
    }  # fmt: skip
    found = torch.full_like(hue, 1 + COLOURS.index("red"), dtype=torch.uint8)
    for name, start in HUES.items():
        found[hue >= start] = 1 + COLOURS.index(name)
    for name, fits in reversed(rules.items()):
        found[fits] = 1 + COLOURS.index(name)
    return found
