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

#: Networks shown side by side, and probes of heat maps shown, at most.
_COLUMNS, _PROBES = 7, 3


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
    """Rows of one recipe, seed and heat-map probe, by the way they were chosen; `how` the maps were made, in words."""

    title: str
    key: str
    how: str
    columns: tuple[str, ...]
    groups: dict[str, tuple[Row, ...]] = field(default_factory=dict)


def galleries(found: Results) -> list[Gallery]:
    """One gallery per probe that stores heat maps of the pictures (the first few), recipe and ticket seed."""
    keys = [key for key, item in found.study.probes.items() if "image.reference" in item.distances]
    if not keys:
        return []
    pictures, shown = found.pictures(), list[Gallery]()
    for probe in keys[:_PROBES]:
        sheet = _Sheet(found, probe, _known(found, probe, pictures), len(keys) > 1)
        if not len(sheet.pictures["ids"]):
            continue
        for recipe in recipes_done(found):
            beyond = excess(found, recipe, sheet.pictures["ids"])
            for seed in found.study.seeds.tickets:
                points, dense = tickets(found, recipe, seed), dense_of(found, seed)
                if dense and points and sheet.mapped(dense):
                    shown.append(sheet.gallery(recipe, [dense, *spread_out(points, _COLUMNS - 1)], beyond))
    return shown


def _known(found: Results, probe: str, pictures: Mapping[str, Array]) -> Mapping[str, Array]:
    """The pictures that the probe has maps of: it may have looked at some images only."""
    if not found.points:
        return pictures
    ids = found.record(found.points[0], probe).ids
    there = np.isin(pictures["ids"], [] if ids is None else ids)
    return {name: values[there] for name, values in pictures.items()}


@dataclass(frozen=True, eq=False)
class _Sheet:
    """What all galleries share."""

    found: Results
    probe: str
    pictures: Mapping[str, Array]
    several: bool

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
        info = self.found.record(points[0], self.probe).info
        how = f"{info.get('method', 'gradcam')}{' at ' + str(info['layer']) if 'layer' in info else ''}"
        title = f"{recipe}, seed {seed}" + (f", {self.probe}" if self.several else "")
        return Gallery(title, f"{self.probe}/{recipe}/{seed}", how, columns, rows)

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
