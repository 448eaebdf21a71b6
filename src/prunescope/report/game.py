"""The two-alternative game: tasks of some units that a reader may try, beside the machine's answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import expit

from prunescope.core.types import Record
from prunescope.report.mis_rows import rows_of_layers
from prunescope.report.pictures import thumbnail_uri
from prunescope.report.places import dense_of, dense_points, percent, recipes_done, tickets
from prunescope.report.probe_rows import keys_of
from prunescope.study.plan import Point
from prunescope.study.results import Results


def game(found: Results) -> dict[str, Any]:
    """Networks, tasks and pictures; empty without a probe `mis` that keeps pictures.

    Of the first probe `mis`: the dense network of the first seed with tickets, and each recipe's last ticket of it.
    A task names places in `pictures`, the query first: `up` drives the unit up, `down` drives it down.
    """
    keys = keys_of(found, "mis")
    if not keys:
        return {}
    sheet = _Sheet()
    networks: list[str] = []
    tasks: list[dict[str, Any]] = []
    for title, point in _networks(found):
        record = found.record(point, keys[0])
        if "game.pictures" not in record.arrays:
            continue
        places = [sheet.place(picture) for picture in zip(*_pictures(record), strict=True)]
        tasks += [{"network": len(networks), **task} for task in _tasks(record, places)]
        networks.append(title)
    return {"networks": networks, "tasks": tasks, "pictures": sheet.uris, "small": sheet.small} if tasks else {}


def _networks(found: Results) -> Iterator[tuple[str, Point]]:
    seeds = [seed for seed in found.study.seeds.tickets if dense_of(found, seed)]
    dense = dense_of(found, seeds[0]) if seeds else next(iter(dense_points(found)), None)
    if dense is None:
        return
    yield "dense", dense
    several = len(recipes_done(found)) > 1
    for recipe in recipes_done(found):
        if own := tickets(found, recipe, dense.seed):
            kept = f"{percent(own[-1].density)} kept"
            yield (f"{recipe}, {kept}" if several else kept), own[-1]


def _pictures(record: Record) -> tuple[Any, Any]:
    return record.arrays["game.images"].tolist(), record.arrays["game.pictures"]


def _tasks(record: Record, places: list[int]) -> Iterator[dict[str, Any]]:
    arrays = record.arrays
    owner: dict[int, tuple[str, int]] = {}
    for layer, part in rows_of_layers(record):
        owner |= {row: (layer, row - part.start) for row in range(part.start, part.stop)}
    place = np.array(places)
    for i, row in enumerate(arrays["game.unit"].tolist()):
        for j, margin in enumerate(arrays["game.margin"][i].tolist()):
            layer, unit = owner[row]
            told = {"layer": layer, "unit": unit, "which": str(arrays["game.which"][i])}
            told |= {"mis": round(float(arrays["unit.mis"][row]), 2), "machine": _hit(margin)}
            told["sure"] = round(float(expit(record.info["alpha"] * margin)), 3)
            if "game.second" in arrays:
                told["second"] = _hit(float(arrays["game.second"][i, j]))
            yield {**told, **{side: place[arrays[f"game.{side}"][i, j]].tolist() for side in ("up", "down")}}


def _hit(margin: float) -> float:
    """1 right, 0 wrong, a half where the judge sees no difference."""
    return 0.5 if margin == 0 else float(margin > 0)


class _Sheet:
    """Pictures, each once: networks share images of one split."""

    def __init__(self) -> None:
        self.uris: list[str] = []
        self.small = False
        self._known: dict[int, int] = {}

    def place(self, picture: tuple[int, Any]) -> int:
        position, pixels = picture
        if position not in self._known:
            self._known[position] = len(self.uris)
            self.uris.append(thumbnail_uri(pixels))
            self.small = max(pixels.shape[1:]) <= 32
        return self._known[position]
