"""The grid of pictures: which test images are shown, and what each network saw in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from prunescope.core.seeds import numpy_generator
from prunescope.core.types import Record
from prunescope.metrics.maps import pearson
from prunescope.report.pictures import heat_uri, picture_uri
from prunescope.study.plan import Point
from prunescope.study.results import Results

#: Images per way of choosing. Enough to see a pattern, few enough to look at each.
SHOWN = 8


@dataclass(frozen=True)
class Tile:
    """One image as one network sees it."""

    heat: str
    predicted: str
    right: bool
    confidence: float
    similarity: float | None


@dataclass(frozen=True)
class Row:
    """One image through all networks: dense first, then every round."""

    image: str
    picture: str
    truth: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Gallery:
    """Rows of one recipe, seed and heat-map probe, by the way they were chosen."""

    title: str
    key: str
    columns: tuple[str, ...]
    groups: dict[str, tuple[Row, ...]] = field(default_factory=dict)


#: Ways of choosing, with the words that the page shows.
CHOICES = {
    "random": "Drawn at random (seeded), whatever they show",
    "drift": "Whose map at the lowest density is least like the dense network's, both being right",
    "flips": "That some ticket decides otherwise than the dense network",
}


def galleries(results: Results) -> list[Gallery]:
    """One gallery per recipe and ticket seed with complete rounds, for the first probe that stores heat maps."""
    probe = next((key for key, item in results.study.probes.items() if "image.reference" in item.distances), None)
    if probe is None:
        return []
    pictures = results.pictures()
    found = []
    for recipe in results.study.recipes:
        for seed in results.study.seeds.tickets:
            points = sorted(_tickets(results, recipe.name, seed), key=lambda point: point.round)
            dense = next((p for p in results.points if p.role == "dense" and p.seed == seed), None)
            if dense and points:
                found.append(_gallery(results, probe, pictures, recipe.name, [dense, *points]))
    return found


def _tickets(results: Results, recipe: str, seed: int) -> list[Point]:
    return [p for p in results.points if (p.role, p.recipe, p.seed) == ("ticket", recipe, seed)]


@dataclass(frozen=True, eq=False)
class _Seen:
    """What one network did with the pictures: aligned with them by image id."""

    predicted: np.ndarray[Any, Any]
    confidence: np.ndarray[Any, Any]
    maps: np.ndarray[Any, Any]


def _gallery(
    results: Results, probe: str, pictures: dict[str, np.ndarray[Any, Any]], recipe: str, points: Sequence[Point]
) -> Gallery:
    performance = next(key for key, item in results.study.probes.items() if item.name == "performance")
    seen = [_seen(results.record(p, performance), results.record(p, probe), pictures["ids"]) for p in points]
    classes = [str(name) for name in results.data["classes"]]
    similarity = np.stack([pearson(seen[0].maps, other.maps) for other in seen])
    chosen = _choose(seen, pictures["labels"], similarity[-1])
    rows = {
        name: tuple(_row(seen, similarity, pictures, classes, int(i)) for i in index) for name, index in chosen.items()
    }
    seed = points[0].seed
    columns = ("dense", *(f"{p.density:.1%}" for p in points[1:]))
    return Gallery(f"{recipe}, seed {seed}", f"{recipe}-{seed}", columns, rows)


def _seen(performance: Record, maps: Record, ids: np.ndarray[Any, Any]) -> _Seen:
    assert performance.ids is not None
    assert maps.ids is not None
    rows, map_rows = _positions(performance.ids, ids), _positions(maps.ids, ids)
    return _Seen(
        performance.arrays["image.predicted"][rows], performance.arrays["image.confidence"][rows],
        maps.arrays["image.reference"][map_rows].astype(np.float64),
    )  # fmt: skip


def _positions(have: np.ndarray[Any, Any], want: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    place = {name: i for i, name in enumerate(have.tolist())}
    return np.array([place[name] for name in want.tolist()], dtype=np.int64)


def _choose(
    seen: Sequence[_Seen], labels: np.ndarray[Any, Any], similarity: np.ndarray[Any, Any]
) -> dict[str, np.ndarray[Any, Any]]:
    """Positions of the images to show: a fair draw, and two that look for trouble and say so."""
    generator = numpy_generator(0, "gallery")
    order = generator.permutation(len(labels))
    both = (seen[0].predicted == labels) & (seen[-1].predicted == labels) & np.isfinite(similarity)
    worst = np.argsort(np.where(both, similarity, np.inf), kind="stable")[: min(SHOWN, int(both.sum()))]
    flipped = np.any(np.stack([other.predicted for other in seen[1:]]) != seen[0].predicted, axis=0)
    return {"random": order[:SHOWN], "drift": worst, "flips": order[flipped[order]][:SHOWN]}


def _row(
    seen: Sequence[_Seen],
    similarity: np.ndarray[Any, Any],
    pictures: dict[str, np.ndarray[Any, Any]],
    classes: list[str],
    i: int,
) -> Row:
    label = int(pictures["labels"][i])
    tiles = [
        Tile(
            heat_uri(one.maps[i]), classes[int(one.predicted[i])], int(one.predicted[i]) == label,
            float(one.confidence[i]), float(similarity[k, i]) if k and np.isfinite(similarity[k, i]) else None,
        )
        for k, one in enumerate(seen)
    ]  # fmt: skip
    return Row(str(pictures["ids"][i]), picture_uri(pictures["images"][i]), classes[label], tuple(tiles))
