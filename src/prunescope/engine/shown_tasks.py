"""Some tasks of some units, with small pictures: so that a person can try them where the images are not at hand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.mis import UnitTasks

#: Tasks of each unit, and the longest side of a picture: 500 pictures of 64 x 64 pixels are 6 MB.
EACH, SIDE = 3, 64
#: Which units of a layer: by their score.
WHICH = ("best", "median", "worst")


def shown_tasks(units: UnitTasks, scores: Array, split: Split, layers: list[str], *, seed: int = 0) -> dict[str, Array]:
    """Tasks of the best, the median and the worst unit of some layers; of equal units and of tasks a seed draws.

    Args:
        scores: (U,) of every unit, NaN where there is none; a layer with fewer than three scores is passed over.
        split: the images that the tasks name.

    Returns:
        `game.unit` (G,) rows of units; `game.which` (G,) of `WHICH`; `game.task` (G, T) which of a unit's tasks;
        `game.up` and `game.down` (G, T, K + 1), the query first, rows of `game.pictures` uint8 (P, C, h, w), each
        image once, of at most 64 pixels a side; `game.images` (P,) their positions in the split. Nothing where no
        layer has three scores.
    """
    generator = numpy_generator(seed, "shown tasks")
    chosen = [pair for layer in layers for pair in _of_layer(units, scores, layer, generator)]
    if not chosen:
        return {}
    rows = np.array([row for row, _ in chosen])
    number = units.tasks.shape[1]
    task = np.stack([np.sort(generator.permutation(number)[:EACH]) for _ in rows])
    up, down = (side[rows[:, None], task] for side in (units.tasks.up, units.tasks.down))
    images, place = np.unique(np.stack([up, down]), return_inverse=True)
    place = place.reshape(2, *up.shape)
    return {
        "game.unit": rows, "game.which": np.array([which for _, which in chosen]), "game.task": task,
        "game.up": place[0], "game.down": place[1], "game.images": images,
        "game.pictures": small(split.subset(images).images[:]).numpy(),
    }  # fmt: skip


def some_layers(units: UnitTasks, count: int, among: list[str]) -> list[str]:
    """At most so many of the layers, evenly chosen among those with three scored units; first and last are in."""
    scored = dict(zip(units.layers, np.isfinite(units.table(np.where(units.scored, 1.0, np.nan))).sum(1), strict=True))
    known = [name for name in among if scored[name] >= len(WHICH)]
    places = np.linspace(0, len(known) - 1, min(count, len(known))).round().astype(int)
    return [known[i] for i in dict.fromkeys(places.tolist())] if known and count else []


def small(images: Tensor) -> Tensor:
    """uint8 images (P, C, H, W) with a longest side of at most 64 pixels."""
    longest = max(images.shape[2:])
    if longest <= SIDE:
        return images
    size = [max(1, round(side * SIDE / longest)) for side in images.shape[2:]]
    shrunk = F.interpolate(images.float(), size, mode="bilinear", antialias=True, align_corners=False)
    return shrunk.round().clamp(0, 255).to(images.dtype)


def _of_layer(units: UnitTasks, scores: Array, layer: str, generator: np.random.Generator) -> Iterator[tuple[int, str]]:
    """(row, which) of the layer's best, median and worst unit."""
    names = list(units.layers)
    start = sum(units.layers[name] for name in names[: names.index(layer)])
    own = scores[start : start + units.layers[layer]]
    order = np.lexsort((generator.permutation(len(own)), -own))[: int(np.isfinite(own).sum())]
    if len(order) >= len(WHICH):
        for which, place in zip(WHICH, (0, len(order) // 2, -1), strict=True):
            yield start + int(order[place]), which
