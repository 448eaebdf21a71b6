"""Pictures of simple scenes, drawn for whole batches at once with signed distances instead of loops over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

SHAPES = ("circle", "square", "triangle", "star")
TEXTURES = ("plain", "striped", "dotted")
COLOURS = ("red", "green", "blue", "yellow")
BACKGROUNDS = ("cloudy", "tiled", "lined")

_RGB = np.array([[0.87, 0.20, 0.22], [0.16, 0.66, 0.34], [0.17, 0.42, 0.88], [0.97, 0.78, 0.12]], np.float32)
_INK = np.array([[1.0, 0.93, 0.88], [0.93, 1.0, 0.90], [0.90, 0.95, 1.0], [0.45, 0.24, 0.02]], np.float32)
TAG = 0.14  # side of the corner tag, as a share of the image's side


@dataclass(frozen=True, eq=False)
class Blobs:
    """B shapes, one per image. Lengths are shares of the image's side, angles are radians, kinds are indices.

    Attributes:
        shape, colour: int (B,), into `SHAPES` and `COLOURS`.
        x, y: centres (B,), from the upper left corner.
        radius: (B,) of a circle that the shape never leaves.
        angle: (B,) its rotation.
    """

    shape: Array
    colour: Array
    x: Array
    y: Array
    radius: Array
    angle: Array


@dataclass(frozen=True, eq=False)
class Scenes:
    """What B images show; `draw` turns it into pixels.

    Attributes:
        objects: the labelled object of every image.
        texture: int (B,), of the object, into `TEXTURES`.
        grain: (B,) angle of the object's pattern.
        background: int (B,), into `BACKGROUNDS`.
        tag: bool (B,), whether the white tag sticks in the lower right corner.
        distractors: smaller shapes beneath the object: pairs of bool (B,), which images have it, and the shapes.
        noise: seed of what is left to chance in the pixels: clouds, tints, film grain.
    """

    objects: Blobs
    texture: Array
    grain: Array
    background: Array
    tag: Array
    distractors: tuple[tuple[Array, Blobs], ...]
    noise: int


def draw(scenes: Scenes, size: int) -> tuple[Array, Array]:
    """Images uint8 (B, 3, size, size) and the pixels of the objects, bool (B, size, size)."""
    random = np.random.default_rng(scenes.noise)
    canvas = _backgrounds(scenes.background, size, random)
    for present, blobs in scenes.distractors:
        distance = _distance(blobs, size, np.flatnonzero(present))
        _paint(canvas, distance, _RGB[blobs.colour] * 0.9, halo=0.12, where=present)
    distance = _distance(scenes.objects, size)
    _paint(canvas, distance, _surface(scenes, size), halo=0.4)
    canvas += 0.013 * random.standard_normal((len(canvas), 1, size, size), dtype=np.float32)
    _stick_tags(canvas, scenes.tag)
    return (canvas.clip(0, 1) * 255 + 0.5).astype(np.uint8), distance < 0


def regions(scenes: Scenes, size: int) -> Array:
    """What lies on top at each pixel, uint8 (B, size, size): 0 the background, 1 the object, 2 the tag, 3 and on the
    distractors. A pixel belongs to a shape when its centre does, as in the objects' pixels that `draw` gives."""
    found = np.zeros((len(scenes.background), size, size), np.uint8)
    for number, (present, blobs) in enumerate(scenes.distractors, 3):
        rows = np.flatnonzero(present)
        found[rows] = np.where(_distance(blobs, size, rows) < 0, np.uint8(number), found[rows])
    found[_distance(scenes.objects, size) < 0] = 1
    side = _tag_side(size)
    found[scenes.tag, -side:, -side:] = 2
    return found


def _grid(size: int) -> tuple[Array, Array]:
    """Coordinates of the pixel centres as shares of the side: x (1, 1, size), y (1, size, 1)."""
    centre = (np.arange(size, dtype=np.float32) + 0.5) / size
    return centre[None, None, :], centre[None, :, None]


def _column(values: Array) -> Array:
    return np.asarray(values, np.float32)[:, None, None]


def _turned(x: Array, y: Array, angle: Array) -> tuple[Array, Array]:
    cos, sin = _column(np.cos(angle)), _column(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def _distance(blobs: Blobs, size: int, index: Array | None = None) -> Array:
    """Signed distance of every pixel to the outline in pixels, negative inside: float32 (len(index), size, size)."""
    index = np.arange(len(blobs.x)) if index is None else index
    x, y = _grid(size)
    result = np.empty((len(index), size, size), np.float32)
    for kind, outline in enumerate((_circle, _square, _triangle, _star)):
        rows = np.flatnonzero(blobs.shape[index] == kind)
        at = index[rows]
        radius = _column(blobs.radius[at])
        u, v = _turned((x - _column(blobs.x[at])) / radius, (y - _column(blobs.y[at])) / radius, blobs.angle[at])
        result[rows] = outline(u, v) * radius * size
    return result


def _circle(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v) - 0.84


def _square(u: Array, v: Array) -> Array:
    return np.maximum(abs(u), abs(v)) - 0.7


def _triangle(u: Array, v: Array) -> Array:
    side = 0.8660254 * abs(u) - 0.5 * v
    return np.maximum(side, v) - 0.5


def _star(u: Array, v: Array, inner: float = 0.46) -> Array:
    """Five points of radius 1, dents of radius `inner`: one edge of it, and the plane folded onto that edge."""
    step = np.pi / 5
    turn = abs(np.mod(np.arctan2(v, u), 2 * step) - step)  # 0 at a dent, `step` at a point
    length = np.sqrt(u * u + v * v)
    dent = np.array([inner, 0.0])
    point = np.array([np.cos(step), np.sin(step)])
    along, up = ((point - dent) / np.linalg.norm(point - dent)).astype(np.float32)
    return length * (up * np.cos(turn) - along * np.sin(turn)) - np.float32(inner) * up


def _surface(scenes: Scenes, size: int) -> Array:
    """Colours of the objects' surface (B, 3, size, size): base colour, pattern, light from above left."""
    x, y = _grid(size)
    objects = scenes.objects
    u, v = _turned(x - _column(objects.x), y - _column(objects.y), scenes.grain)
    ink = np.zeros((len(u), 1, size, size), np.float32)
    for kind, pattern in ((1, _stripes), (2, _dots)):
        rows = scenes.texture == kind
        ink[rows, 0] = pattern(u[rows], v[rows], size)
    base, second = (table[objects.colour][:, :, None, None] for table in (_RGB, _INK))
    light = 1 - 0.32 * ((x - _column(objects.x)) + (y - _column(objects.y))) / _column(objects.radius) * 0.5
    return (base + (second - base) * ink) * light[:, None]


def _stripes(u: Array, v: Array, size: int, period: float = 0.135) -> Array:
    wave = abs(np.mod(u / period, 1) - 0.5) * period  # distance to the middle of a gap
    return (0.5 + (wave - 0.26 * period) * size).clip(0, 1)


def _dots(u: Array, v: Array, size: int, cell: float = 0.15, radius: float = 0.046) -> Array:
    row = np.floor(v / cell)
    across = np.mod(u / cell + 0.5 * row, 1) - 0.5  # every other row is shifted
    along = np.mod(v / cell, 1) - 0.5
    return (0.5 + (radius - cell * np.sqrt(across * across + along * along)) * size).clip(0, 1)


def _paint(canvas: Array, distance: Array, colour: Array, *, halo: float, where: Array | None = None) -> None:
    """Lay shapes over the images in place, antialiased, with a soft shadow around them and a darker rim."""
    if colour.ndim == 2:
        colour = colour[:, :, None, None]
    if where is not None:
        colour = colour[where]
    target = canvas if where is None else canvas[where]
    distance = distance[:, None]
    size = canvas.shape[-1]
    target *= 1 - halo * np.exp(-np.maximum(distance, 0) * (40 / size))
    rim = 1 - 0.45 * (1.2 + distance * (32 / size)).clip(0, 1)
    target += (colour * rim - target) * (0.5 - distance).clip(0, 1)
    if where is not None:
        canvas[where] = target


def _backgrounds(kinds: Array, size: int, random: np.random.Generator) -> Array:
    """Muted two-tone backgrounds (B, 3, size, size)."""
    n = len(kinds)
    x, y = _grid(size)
    u, v = _turned(x, y, random.uniform(0, np.pi, n))
    scale = _column(random.uniform(0.85, 1.25, n))
    field = 0.35 * _clouds(n, size, random)
    field[kinds == 0] *= 2.6
    tiled, lined = kinds == 1, kinds == 2
    field[tiled] += 0.6 * np.tanh(size / 7 * np.sin(u * 18 / scale)[tiled] * np.sin(v * 18 / scale)[tiled])
    field[lined] += 0.65 * np.sin(u[lined] * 42 / scale[lined])
    tone = random.uniform(0.45, 0.75, n).astype(np.float32)[:, None]
    tint = random.uniform(-0.075, 0.075, (n, 3)).astype(np.float32)
    swing = (0.085 + random.uniform(-0.03, 0.03, (n, 3))).astype(np.float32)
    return (tone + tint)[:, :, None, None] + swing[:, :, None, None] * field[:, None]


def _clouds(n: int, size: int, random: np.random.Generator) -> Array:
    """Smooth noise (n, size, size) of about unit variance: three octaves of bilinear interpolation."""
    total = np.zeros((n, size, size), np.float32)
    for knots, weight in ((4, 0.8), (8, 0.55), (16, 0.35)):
        values = random.standard_normal((n, knots, knots), dtype=np.float32)
        weights = _interpolation(knots, size)
        total += weight * 1.5 * (weights @ values @ weights.T)
    return total


def _interpolation(knots: int, size: int) -> Array:
    """Weights (size, knots) of linear interpolation between evenly spaced knots."""
    at = np.linspace(0, knots - 1, size)[:, None]
    return (1 - abs(at - np.arange(knots)[None])).clip(0, None).astype(np.float32)


def _stick_tags(canvas: Array, tag: Array) -> None:
    side = _tag_side(canvas.shape[-1])
    canvas[tag, :, -side - 1 :, -side - 1 :] *= 0.45  # a dark rim, so that it shows on bright backgrounds
    canvas[tag, :, -side:, -side:] = 0.97


def _tag_side(size: int) -> int:
    return max(2, round(TAG * size))
