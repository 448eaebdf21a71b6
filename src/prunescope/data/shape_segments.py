"""Exact labels of the pixels of `shapes`: what lies on top there, its outline, surface and colour."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from prunescope.data.drawing import BACKGROUNDS, COLOURS, SHAPES, TEXTURES, Array, Scenes, regions
from prunescope.data.segments import Coded

#: Distractors are coloured, plain shapes too: a red pixel of one is red.
SEGMENTS = (
    *SHAPES, *TEXTURES, *COLOURS, "object", "distractor", *(f"{kind} background" for kind in BACKGROUNDS), "corner tag",
)  # fmt: skip
CATEGORIES = (
    *["shape"] * len(SHAPES), *["texture"] * len(TEXTURES), *["colour"] * len(COLOURS), "thing", "thing",
    *["background"] * len(BACKGROUNDS), "tag",
)  # fmt: skip
_KINDS = len(SHAPES) * len(TEXTURES) * len(COLOURS)
_TAG = len(BACKGROUNDS)
_FIRST = _TAG + 1  # code of the first shape; objects before distractors


def coded(scenes: Iterable[Scenes], n: int, size: int) -> Coded:
    """Labels of the first n images of the scenes."""
    codes = torch.empty((n, size, size), dtype=torch.uint8)
    start = 0
    for part in scenes:
        here = slice(start, min(start + len(part.background), n))
        codes[here] = torch.from_numpy(_codes(part, size)[: here.stop - start])
        start = here.stop
    table = _table()
    return Coded(codes, table, torch.ones(len(table), dtype=torch.bool))


def _codes(scenes: Scenes, size: int) -> Array:
    """uint8 (B, size, size), rows of `_table`."""
    objects = scenes.objects
    columns = [scenes.background, _shape(objects.shape, scenes.texture, objects.colour), np.full(len(objects.x), _TAG)]
    columns += [_KINDS + _shape(blobs.shape, 0, blobs.colour) for _, blobs in scenes.distractors]
    lookup = np.stack(columns, 1).astype(np.uint8)
    found: Array = lookup[np.arange(len(lookup))[:, None, None], regions(scenes, size)]
    return found


def _shape(shape: Array, texture: Array | int, colour: Array) -> Array:
    return _FIRST + (shape * len(TEXTURES) + texture) * len(COLOURS) + colour


def _table() -> torch.Tensor:
    """bool (S, K): backgrounds, the tag, objects, distractors."""
    table = torch.zeros(_FIRST + 2 * _KINDS, len(SEGMENTS), dtype=torch.bool)
    backgrounds = torch.arange(len(BACKGROUNDS))
    table[backgrounds, SEGMENTS.index("object") + 2 + backgrounds] = True
    table[_TAG, -1] = True
    for thing, start in (("object", _FIRST), ("distractor", _FIRST + _KINDS)):
        kind = torch.arange(_KINDS)
        rows, first_texture, first_colour = start + kind, len(SHAPES), len(SHAPES) + len(TEXTURES)
        table[rows, kind // (len(TEXTURES) * len(COLOURS))] = True
        table[rows, first_texture + kind // len(COLOURS) % len(TEXTURES)] = True
        table[rows, first_colour + kind % len(COLOURS)] = True
        table[rows, SEGMENTS.index(thing)] = True
    return table
