"""Which test images the gallery shows: a fair draw, and three ways that look for trouble and say so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Array
from prunescope.report.places import dense_of, predictions, tickets
from prunescope.study.hits import hits
from prunescope.study.results import Results

#: Images per way of choosing. Enough to see a pattern, few enough to look at each.
SHOWN = 8

#: Ways of choosing, with the words that the page shows.
CHOICES = {
    "random": "drawn at random, whatever they show",
    "drift": "whose map at the lowest density is least like the dense network's, though both are right",
    "flips": "that some ticket decides otherwise than the dense network (random among them)",
    "hit": "hit most: that the recipe's tickets decide otherwise more often than other dense seeds do",
}


@dataclass(frozen=True, eq=False)
class Seen:
    """What one network did with the pictures: predicted (N,), confidence (N,), maps (N, h, w), NaN where blank."""

    predicted: Array
    confidence: Array
    maps: Array


def choose(seen: Sequence[Seen], labels: Array, similarity: Array, beyond: Array) -> dict[str, Array]:
    """{way: positions of the pictures}.

    Args:
        seen: dense first, the lowest density last.
        similarity: of the last network's maps with the dense one's, (N,); NaN where there is none.
        beyond: see `excess`.
    """
    order = numpy_generator(0, "gallery").permutation(len(labels))
    both = (seen[0].predicted == labels) & (seen[-1].predicted == labels) & np.isfinite(similarity)
    worst = np.argsort(np.where(both, similarity, np.inf), kind="stable")[: min(SHOWN, int(both.sum()))]
    flipped = np.any(np.stack([other.predicted for other in seen[1:]]) != seen[0].predicted, axis=0)
    hit = np.argsort(-beyond, kind="stable")[: min(SHOWN, int((beyond > 0).sum()))]
    return {"random": order[:SHOWN], "drift": worst, "flips": order[flipped[order]][:SHOWN], "hit": hit}


def excess(found: Results, recipe: str, ids: Array) -> Array:
    """How much more often the recipe's tickets (all seeds and densities) decide otherwise than their dense network
    than dense networks of different seeds do among themselves, for each picture (N,), -1 to 1."""
    pairs = []
    dense = {point.seed: predictions(found, point) for point in found.points if point.role == "dense"}
    for point in tickets(found, recipe):
        if dense_of(found, point.seed):
            pairs.append((dense[point.seed], predictions(found, point)))
    if not pairs:
        return np.zeros(len(ids))
    every = hits(pairs)
    value = dict(zip(every.ids.tolist(), every.flipped - np.nan_to_num(every.between_dense), strict=True))
    return np.array([value.get(name, 0.0) for name in ids.tolist()])
