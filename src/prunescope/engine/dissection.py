"""Which units detect which concepts: Network Dissection of all layers at once, beside what chance gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.types import Record
from prunescope.data.segments import Segments
from prunescope.data.split import Split
from prunescope.engine.detectors import Dissection, Question
from prunescope.engine.extremes import as_maps
from prunescope.engine.overlaps import Labels, Overlaps
from prunescope.engine.quantiles import UpperQuantiles
from prunescope.engine.sweep import Needs, Pass, find_module, sweep
from prunescope.engine.units import behind_norms
from prunescope.metrics.dissection import overlap
from prunescope.models.stages import last_of_stages

#: Where units are read: of every convolution, behind its batch norm where one follows at once and before the
#: activation; or at the end of every stage, as the network passes it on.
At = Literal["convolutions", "stages"]
_CHUNK = 32  # images whose kept maps are compared at once


def dissect(
    model: nn.Module,
    split: Split,
    *,
    layers: Sequence[str] = (),
    at: At = "convolutions",
    question: Question | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> Dissection:
    """Which concepts the units of a network detect (Bau et al. 2017): all layers at once, one pass where maps fit.

    A unit is active where its map, up-sampled to the image's size, is above what it exceeds at `quantile` of all images
    and places. Its overlap with a concept is intersection over union of these pixels and those labelled so, sums over
    the whole split; pixels without a label are left out. The same with labels of other images says what overlaps by
    chance.

    Args:
        split: images with `segments`.
        layers, at: see `unit_places`.
        question: what makes a detector; none: the paper's numbers.

    Raises:
        PrunescopeError: a split without labels of pixels or whose labels show no concept, fewer positions than
            1 / quantile, unknown layers, activations that are not maps or not finite.
    """
    gatherer = DissectionGatherer(model, split, unit_places(model, split, layers, at), question or Question(), "images")
    sweep(model, {"images": split}, [gatherer], batch_size=batch_size, device=device, on_batch=on_batch)
    return gatherer.found


def unit_places(model: nn.Module, split: Split, layers: Sequence[str] = (), at: At = "convolutions") -> dict[str, str]:
    """{layer: module whose output is read}.

    Args:
        layers: names or patterns of convolutions, none: all that run; with `at="stages"` names of modules, none: the
            last of every stage (`models.stages`).
    """
    if at not in get_args(At):
        raise choices("place", at, get_args(At), "dissection")
    if at == "convolutions":
        return behind_norms(model, layers, what="dissection")
    names = list(layers) or last_of_stages(model, split.shape)
    for name in names:
        find_module(model, name)
    return {name: name for name in names}


class DissectionGatherer:
    """Finds thresholds while the sweep runs, then compares: kept maps, or those of a second pass.

    `found` is there when the sweep is done. Memory: `quantile` of all activations of the split, for exact thresholds,
    and up to `Question.memory` for all of them.
    """

    found: Dissection

    def __init__(
        self, model: nn.Module, split: Split, places: Mapping[str, str], question: Question, name: str = "test"
    ) -> None:
        self.model, self.split, self.places, self.question, self.name = model, split, places, question, name
        self.segments, self.shown = _labelled(split, name)
        self.quantiles = {layer: UpperQuantiles(layer, question.quantile, len(split)) for layer in places}
        self.kept: dict[str, Tensor] | None = None
        self.batch_size = 0

    @property
    def needs(self) -> Needs:
        return Needs(layers=tuple(dict.fromkeys(self.places.values())), splits=(self.name,))

    def update(self, batch: Pass) -> None:
        maps = _maps(self.places, batch)
        if not self.batch_size:
            self.batch_size, self.device = len(batch.index), batch.x.device
            self.kept = self._room(maps)
        for layer, own in maps.items():
            self.quantiles[layer].add(own)
            if self.kept is not None:
                self.kept[layer][batch.index.to(own.device)] = own

    def _room(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Where all maps of the split go; None when they do not fit."""
        images = len(self.split)
        if 4 * images * sum(own[0].numel() for own in maps.values()) > self.question.memory:
            return None
        return {layer: own.new_empty((images, *own.shape[1:])) for layer, own in maps.items()}

    def finish(self) -> Record:
        """An empty record: what was found is in `found`."""
        labels = Labels(self.segments, self.question.draws, self.question.seed)
        counts = {layer: Overlaps(labels, item.thresholds()) for layer, item in self.quantiles.items()}
        if self.kept is None:
            again = _Comparison(self.places, counts, self.name)
            sweep(self.model, {self.name: self.split}, [again], batch_size=self.batch_size, device=self.device)
        else:
            for layer, maps in self.kept.items():
                for index in torch.arange(len(maps)).split(_CHUNK):
                    counts[layer].add(maps[index.to(maps.device)], index)
        passes, self.kept = 2 if self.kept is None else 1, None
        self.found = self._found(list(counts.values()), passes)
        return Record("dissection")

    def _found(self, counts: Sequence[Overlaps], passes: int) -> Dissection:
        quantiles = list(self.quantiles.values())
        shown = self.shown.numpy()
        tables = [overlap(*item.found(), shown) for item in counts]
        table = np.concatenate(tables, axis=1)  # (orders, U, K)
        dead = np.concatenate([item.constant().cpu().numpy() for item in quantiles])
        tied = np.concatenate([item.tied().cpu().numpy() for item in quantiles]) & ~dead
        cutoffs = np.concatenate([item.thresholds().cpu().numpy() for item in quantiles])
        left = dead | tied
        table[:, left] = np.nan
        chance = np.where(left[:, None], np.nan, np.nan_to_num(table[1:], nan=-1).max(axis=2).T)
        widths = {layer: len(item.thresholds) for layer, item in zip(self.quantiles, counts, strict=True)}
        return Dissection(
            widths, self.segments.names, self.segments.categories, table[0], chance, dead, tied,
            np.where(left, np.nan, cutoffs), shown / self.segments.labelled(), self.question, len(self.split), passes,
        )  # fmt: skip


class _Comparison:
    """Counts overlaps during a second pass."""

    def __init__(self, places: Mapping[str, str], counts: Mapping[str, Overlaps], name: str) -> None:
        self.places, self.counts, self.name = places, counts, name

    @property
    def needs(self) -> Needs:
        return Needs(layers=tuple(dict.fromkeys(self.places.values())), splits=(self.name,))

    def update(self, batch: Pass) -> None:
        for layer, maps in _maps(self.places, batch).items():
            for part in torch.arange(len(maps)).split(_CHUNK):
                self.counts[layer].add(maps[part.to(maps.device)], batch.index[part])

    def finish(self) -> Record:
        return Record("dissection")


def _maps(places: Mapping[str, str], batch: Pass) -> dict[str, Tensor]:
    return {layer: as_maps(batch.activations[place], layer) for layer, place in places.items()}


def _labelled(split: Split, name: str) -> tuple[Segments, Tensor]:
    """The split's labels, and how many pixels show each concept."""
    if split.segments is None:
        raise PrunescopeError(
            f"dissection needs labels of pixels, and split {name!r} has none; take data with segments (shapes, "
            "folder with segments), or leave the probe out"
        )
    shown = split.segments.pixels()
    if not len(split) or not bool(shown.any()):
        raise PrunescopeError(f"dissection: no pixel of split {name!r} shows any of the {len(shown)} concepts")
    return split.segments, shown
