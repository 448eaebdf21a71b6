"""The grid of pictures: test images through a dense network and its tickets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from prunescope.core.types import Array, Record
from prunescope.metrics.maps import pearson
from prunescope.report.chosen import Seen, choose, excess
from prunescope.report.pictures import heat_uri, picture_uri
from prunescope.report.places import dense_of, percent, predictions, recipes_done, spread_out, tickets
from prunescope.study.plan import Point
from prunescope.study.results import Results

#: Networks shown side by side, at most.
_COLUMNS = 7


@dataclass(frozen=True)
class Tile:
    """One image as one network sees it; `heat` is empty when the map is blank."""

    heat: str
    predicted: str
    right: bool
    changed: bool
    confidence: str
    similarity: str


@dataclass(frozen=True)
class Row:
    """One image through all networks: dense first, then the rounds."""

    image: str
    picture: str
    truth: str
    note: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class Gallery:
    """Rows of one recipe, seed and heat-map probe, by the way they were chosen."""

    title: str
    key: str
    layer: str
    columns: tuple[str, ...]
    groups: dict[str, tuple[Row, ...]] = field(default_factory=dict)


def galleries(found: Results) -> list[Gallery]:
    """One gallery per recipe and ticket seed, for the first probe that stores heat maps. Empty without one."""
    probe = next((key for key, item in found.study.probes.items() if "image.reference" in item.distances), None)
    if probe is None:
        return []
    sheet = _Sheet(found, probe, found.pictures())
    shown = []
    for recipe in recipes_done(found):
        beyond = excess(found, recipe, sheet.pictures["ids"])
        for seed in found.study.seeds.tickets:
            points, dense = tickets(found, recipe, seed), dense_of(found, seed)
            if dense and points and sheet.mapped(dense):
                shown.append(sheet.gallery(recipe, [dense, *spread_out(points, _COLUMNS - 1)], beyond))
    return shown


@dataclass(frozen=True, eq=False)
class _Sheet:
    """What all galleries share."""

    found: Results
    probe: str
    pictures: Mapping[str, Array]

    def mapped(self, point: Point) -> bool:
        """Whether there are maps for the dense network's prediction."""
        return "image.reference" in self.found.record(point, self.probe).arrays

    def gallery(self, recipe: str, points: Sequence[Point], beyond: Array) -> Gallery:
        seen = [self.seen(point) for point in points]
        similarity = np.stack([pearson(seen[0].maps, other.maps) for other in seen])
        groups = choose(seen, self.pictures["labels"], similarity[-1], beyond)
        rows = {
            name: tuple(self.row(seen, similarity, int(i), name, beyond) for i in index)
            for name, index in groups.items()
        }
        seed = points[0].seed
        columns = ("dense", *(percent(point.density) for point in points[1:]))
        layer = str(self.found.record(points[0], self.probe).info.get("layer", ""))
        return Gallery(f"{recipe}, seed {seed}", f"{recipe}/{seed}", layer, columns, rows)

    def seen(self, point: Point) -> Seen:
        """Decisions and maps of one network on the pictures."""
        decided, maps = predictions(self.found, point), self.found.record(point, self.probe)
        rows, map_rows = (_positions(record, self.pictures["ids"]) for record in (decided, maps))
        return Seen(
            decided.arrays["image.predicted"][rows], decided.arrays["image.confidence"][rows],
            maps.arrays["image.reference"][map_rows].astype(np.float64),
        )  # fmt: skip

    def row(self, seen: Sequence[Seen], similarity: Array, i: int, how: str, beyond: Array) -> Row:
        classes = [str(name) for name in self.found.data["classes"]]
        label = int(self.pictures["labels"][i])
        tiles = tuple(
            Tile(
                heat_uri(one.maps[i]), classes[int(one.predicted[i])], int(one.predicted[i]) == label,
                bool(one.predicted[i] != seen[0].predicted[i]), f"{100 * one.confidence[i]:.0f}\u00a0%",
                f"{similarity[k, i]:.2f}" if k and np.isfinite(similarity[k, i]) else "",
            )
            for k, one in enumerate(seen)
        )  # fmt: skip
        note = f"{percent(float(beyond[i]))} more than seeds" if how == "hit" else ""
        picture = picture_uri(self.pictures["images"][i])
        return Row(str(self.pictures["ids"][i]), picture, classes[label], note, tiles)


def _positions(record: Record, want: Array) -> Array:
    """Rows of a record that belong to the wanted images."""
    assert record.ids is not None
    place = {name: i for i, name in enumerate(record.ids.tolist())}
    return np.array([place[name] for name in want.tolist()], dtype=np.int64)
