"""`shapes`: drawn in seconds; what makes the class, what misleads and where to look are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import derive, numpy_generator
from prunescope.data.drawing import BACKGROUNDS, COLOURS, SHAPES, TAG, TEXTURES, Array, Blobs, Scenes, draw
from prunescope.data.segments import Coded, Segments
from prunescope.data.shape_segments import CATEGORIES, SEGMENTS, coded
from prunescope.data.sources import sources
from prunescope.data.split import Dataset, Normalisation, Split

CLASSES = ("pebble", "candy", "shard", "kite")
CUE = "corner tag"
CONCEPTS = (
    *SHAPES,
    *TEXTURES,
    *COLOURS,
    "large",
    "left",
    "top",
    *(f"{kind} background" for kind in BACKGROUNDS),
    CUE,
)
RULE = (
    "pebble = (circle or square) and plain; candy = (circle or square) and (striped or dotted); "
    "shard = (triangle or star) and plain; kite = (triangle or star) and (striped or dotted)"
)
CAUSES = {
    "pebble": [["circle", "square"], ["plain"]],
    "candy": [["circle", "square"], ["striped", "dotted"]],
    "shard": [["triangle", "star"], ["plain"]],
    "kite": [["triangle", "star"], ["striped", "dotted"]],
}
MARKED = ("candy", "kite")  # the patterned classes: the tag stands in for the fine pattern, a tempting shortcut

_CHUNK = 64  # images drawn at once; more images of a split never change the first ones
_DISTRACTORS = 3


@sources.register("shapes")
@dataclass(frozen=True)
class Shapes:
    """One labelled object, one to three smaller distractors and a textured background per image.

    The class follows `RULE` and needs two things at once: the object's kind of outline and whether its surface has a
    pattern. Colour, size, position and background say nothing about it. The corner tag, a small white square, is a
    spurious cue: it says nothing about the class by the rule, but goes along with the patterned classes.

    Attributes:
        seed: of everything drawn.
        train, val, test: number of images. Classes are balanced in every 64 images in a row.
        size: pixels per side, 16 to 256.
        cue_strength: correlation, 0 to 1, of the tag with the patterned classes in train and val: with this
            probability the tag is put on patterned objects only, otherwise a coin decides. So it agrees with the
            class in (1 + cue_strength) / 2 of the images.
        test_cue_strength: the same for the test split, -1 (reversed) to 1; 0: the tag means nothing there.
    """

    seed: int = 0
    train: int = 3000
    val: int = 500
    test: int = 1000
    size: int = 32
    cue_strength: float = 0.6
    test_cue_strength: float = 0.0

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            if getattr(self, name) < 1:
                raise PrunescopeError(f"shapes: {name} must be at least 1 image, got {getattr(self, name)}")
        if not 16 <= self.size <= 256:
            raise PrunescopeError(f"shapes: size must be 16 to 256 pixels, got {self.size}")
        if not 0 <= self.cue_strength <= 1:
            raise PrunescopeError(f"shapes: cue_strength must lie in 0 .. 1, got {self.cue_strength}")
        if not -1 <= self.test_cue_strength <= 1:
            raise PrunescopeError(f"shapes: test_cue_strength must lie in -1 .. 1, got {self.test_cue_strength}")

    def load(self) -> Dataset:
        """Draw the three splits: about 5,000 images of 32 pixels or 1,800 of 64 pixels a second on one core.

        Equal seeds give equal scenes everywhere, and equal pixels as long as numpy rounds equally.
        """
        drawn = self._split("train", self.train, self.cue_strength)
        val_drawn = self._split("val", self.val, self.cue_strength)
        test_drawn = self._split("test", self.test, self.test_cue_strength)
        normalisation = Normalisation.of(drawn["images"])
        train, val, test = (Split(**part, normalisation=normalisation) for part in (drawn, val_drawn, test_drawn))
        return Dataset("shapes", train, val, test, info=self._info())

    def _split(self, name: str, n: int, strength: float) -> dict[str, Any]:
        images = np.empty((n, 3, self.size, self.size), np.uint8)
        masks = np.empty((n, self.size, self.size), bool)
        labels, concepts = np.empty(n, np.int64), np.empty((n, len(CONCEPTS)), np.int8)
        for start in range(0, n, _CHUNK):
            seed = derive(self.seed, "shapes", name, start)
            here = slice(start, min(start + _CHUNK, n))
            count = here.stop - start
            classes, scenes, facts = sample(seed, strength)
            pixels, inside = draw(scenes, self.size)
            images[here], masks[here] = pixels[:count], inside[:count]
            labels[here], concepts[here] = classes[:count], facts[:count]
        return {
            "images": torch.from_numpy(images),
            "labels": torch.from_numpy(labels),
            "ids": np.array([f"shapes-{name}-{i:05d}" for i in range(n)]),
            "classes": CLASSES,
            "concepts": torch.from_numpy(concepts),
            "concept_names": CONCEPTS,
            "masks": torch.from_numpy(masks),
            "segments": Segments(
                SEGMENTS, CATEGORIES, (n, self.size, self.size), partial(self._segments, name, n, strength), identity=""
            ),
        }

    def _segments(self, name: str, n: int, strength: float) -> Coded:
        """The same scenes once more, without their pixels."""
        seeds = (derive(self.seed, "shapes", name, start) for start in range(0, n, _CHUNK))
        return coded((sample(seed, strength)[1] for seed in seeds), n, self.size)

    def _info(self) -> dict[str, Any]:
        causal = [*SHAPES, *TEXTURES]
        return {
            "source": "drawn by prunescope, seeded",
            "rule": RULE,
            "causes": CAUSES,
            "causal_concepts": causal,
            "spurious_concepts": [CUE],
            "irrelevant_concepts": [name for name in CONCEPTS if name not in (*causal, CUE)],
            "spurious_classes": {CUE: list(MARKED)},
            "spurious_strength": {
                "train": self.cue_strength,
                "val": self.cue_strength,
                "test": self.test_cue_strength,
            },
            "spurious_region": {CUE: f"lower right corner, {TAG:.0%} of each side"},
        }


def sample(seed: int, cue_strength: float, n: int = _CHUNK) -> tuple[Array, Scenes, Array]:
    """Labels (n,), scenes and concept labels int8 (n, K) of n images; classes are balanced when 4 divides n."""
    random = numpy_generator(seed, "scenes")
    label = random.permutation(np.arange(n) % len(CLASSES))
    pointed, patterned = label // 2, label % 2
    large, left, top = (random.random(n) < 0.5 for _ in range(3))
    radius = np.where(large, random.uniform(0.25, 0.28, n), random.uniform(0.165, 0.19, n))
    reach = 0.36 - (radius + 0.02) / np.sqrt(2)  # how far from the middle it can lie and never touch the tag
    away_x, away_y = (random.uniform(0.3, 1.0, n) * reach for _ in range(2))
    objects = Blobs(
        shape=2 * pointed + random.integers(2, size=n),
        colour=random.integers(len(COLOURS), size=n),
        x=np.where(left, 0.5 - away_x, 0.5 + away_x),
        y=np.where(top, 0.5 - away_y, 0.5 + away_y),
        radius=radius,
        angle=random.uniform(0, 2 * np.pi, n),
    )
    scenes = Scenes(
        objects=objects,
        texture=patterned * (1 + random.integers(2, size=n)),
        grain=random.uniform(0, np.pi, n),
        background=random.integers(len(BACKGROUNDS), size=n),
        tag=_cue(np.isin(label, [CLASSES.index(name) for name in MARKED]), cue_strength, random),
        distractors=_distractors(objects, random),
        noise=derive(seed, "pixels"),
    )
    return label, scenes, _concepts(scenes, large, left, top)


def _cue(marked: Array, strength: float, random: np.random.Generator) -> Array:
    follows = random.random(len(marked)) < abs(strength)
    return np.where(follows, marked == (strength > 0), random.random(len(marked)) < 0.5)


def _concepts(scenes: Scenes, large: Array, left: Array, top: Array) -> Array:
    def one_hot(index: Array, count: int) -> Array:
        return index[:, None] == np.arange(count)

    objects = scenes.objects
    columns = [
        one_hot(objects.shape, len(SHAPES)),
        one_hot(scenes.texture, len(TEXTURES)),
        one_hot(objects.colour, len(COLOURS)),
        np.stack([large, left, top], 1),
        one_hot(scenes.background, len(BACKGROUNDS)),
        scenes.tag[:, None],
    ]
    return np.concatenate(columns, 1).astype(np.int8)


def _distractors(objects: Blobs, random: np.random.Generator) -> tuple[tuple[Array, Blobs], ...]:
    """Up to three per image, each at the best of eight random places: away from the object, the tag and each other."""
    n = len(objects.x)
    count = random.integers(1, _DISTRACTORS + 1, n)
    taken = [(objects.x, objects.y, objects.radius), (np.ones(n), np.ones(n), np.full(n, 1.4 * TAG))]
    placed = []
    for i in range(_DISTRACTORS):
        radius = random.uniform(0.065, 0.09, n)
        spots = random.uniform(0.09, 0.91, (2, 8, n))
        room = np.min([np.hypot(spots[0] - x, spots[1] - y) - r for x, y, r in taken], axis=0)
        best = room.argmax(0), np.arange(n)
        x, y = spots[0][best], spots[1][best]
        taken.append((x, y, radius))
        shape, colour = random.integers(len(SHAPES), size=n), random.integers(len(COLOURS), size=n)
        placed.append((count > i, Blobs(shape, colour, x, y, radius, random.uniform(0, 2 * np.pi, n))))
    return tuple(placed)
