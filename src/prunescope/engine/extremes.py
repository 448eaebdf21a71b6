"""The images that every channel answers most and least, found in one pass over a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.seeds import derive
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.engine.rank_keys import LOTS, lots_of, rank_keys, values_of
from prunescope.engine.sweep import Needs, Pass, sweep
from prunescope.engine.units import Pool

#: `Ranked.rows` and `columns` of what has no place.
NOWHERE = -1


@dataclass(frozen=True, eq=False)
class Ranked:
    """k images for each of C channels, the most extreme first; arrays of (C, k). k is at most the split's length.

    Attributes:
        values: float32, the pooled activation.
        images: positions in the split, int64.
        rows, columns: where on the channel's map the value stands; `NOWHERE` for a mean.
    """

    values: Array
    images: Array
    rows: Array
    columns: Array


@dataclass(frozen=True, eq=False)
class Extremes:
    """What excites the channels of one layer.

    Attributes:
        top, bottom: the images with the largest and the smallest pooled activation. Of equal images the one that comes
            first in the split, or that a seed draws; of equal places the first in reading order.
        dead: bool (C,): no image changes the channel at any place (for a split of one image: it is the same at every
            place), so its ranking says nothing.
        tied: bool (C,): at either end an image that was left out has the same value as the last that was taken, so
            which images are named does not follow from the channel alone.
    """

    top: Ranked
    bottom: Ranked
    dead: Array
    tied: Array


@dataclass(eq=False)
class ExtremesGatherer:
    """Finds the k most extreme images of every channel while a `sweep` runs.

    Everything is on the device of the activations. Memory does not grow with the number of images: 32 (k + 1) bytes a
    channel (100 MB for the 15,560 units of a GoogLeNet and k = 200), and, of one layer at a time, as much again and 32
    bytes for each image of the batch.

    Attributes:
        layers: modules with outputs (B, C, h, w) or (B, C), taken as they come: of a convolution before any activation.
            `NAME:mean`, `NAME:max` or `NAME:centre` (see `engine.sweep.Needs`) keeps no maps where many layers are
            ranked; `pool` has nothing left to do there.
        k: how many images.
        pool: how a map becomes one number per image; "centre" is row h // 2, column w // 2.
        split: which split is walked.
        seed: draws among images with equal values, for every channel anew and whatever the batches are; None: the
            first in the split goes first.
        found: {layer: its extremes}, when the sweep is done.
    """

    layers: Sequence[str]
    k: int = 9
    pool: Pool = "max"
    split: str = "test"
    seed: int | None = None
    found: dict[str, Extremes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.k < 1:
            raise PrunescopeError(f"extremes: k must be at least 1 image, got {self.k}")
        if self.pool not in get_args(Pool):
            raise choices("pool", self.pool, get_args(Pool), "extremes")
        self._states = {layer: _Layer(layer, self.k, self.pool, self.seed) for layer in self.layers}

    @property
    def needs(self) -> Needs:
        return Needs(layers=tuple(self.layers), splits=(self.split,))

    def update(self, batch: Pass) -> None:
        for layer, state in self._states.items():
            state.add(batch.activations[layer], batch.index)

    def finish(self) -> Record:
        """Arrays `LAYER/top.values`, `LAYER/top.images` ..., `LAYER/dead`, `LAYER/tied`; the same as in `found`."""
        self.found = {layer: state.extremes() for layer, state in self._states.items()}
        arrays: dict[str, Array] = {}
        for layer, item in self.found.items():
            arrays |= {f"{layer}/dead": item.dead, f"{layer}/tied": item.tied}
            for end in ("top", "bottom"):
                arrays |= {f"{layer}/{end}.{name}": array for name, array in vars(getattr(item, end)).items()}
        return Record("extremes", arrays=arrays, info={"k": self.k, "pool": self.pool, "split": self.split})


def extremes(
    model: nn.Module,
    split: Split,
    layers: Sequence[str],
    *,
    k: int = 9,
    pool: Pool = "max",
    seed: int | None = None,
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, Extremes]:
    """{layer: the k images of `split` that each of its channels answers most and least}. The model is left as it was.

    Args:
        seed: see `ExtremesGatherer`.

    Raises:
        PrunescopeError: unknown layer, one that does not run or gives no maps, an empty split, or activations that
            are not finite.
    """
    if not len(split):
        raise PrunescopeError("extremes: the split has no images")
    gatherer = ExtremesGatherer(tuple(dict.fromkeys(layers)), k, pool, "images", seed)
    sweep(model, {"images": split}, [gatherer], batch_size=batch_size, device=device, on_batch=on_batch)
    return gatherer.found


def pooled(maps: Tensor, pool: Pool) -> tuple[Tensor, Tensor]:
    """Maps (B, C, h, w) -> one value per map (B, C), and its place in reading order (B, C).

    >>> pooled(torch.tensor([[[[1.0, 3.0], [3.0, 2.0]]]]), "max")
    (tensor([[3.]]), tensor([[1]]))
    """
    flat = maps.flatten(2)
    if pool == "max":
        values, places = flat.max(2)  # of equal values the first
        return values, places
    if pool == "mean":
        return flat.mean(2), torch.full(flat.shape[:2], NOWHERE, device=flat.device)
    place = maps.shape[2] // 2 * maps.shape[3] + maps.shape[3] // 2
    return flat[:, :, place], torch.full(flat.shape[:2], place, device=flat.device)


class _Layer:
    """What is known of one layer so far."""

    def __init__(self, name: str, k: int, pool: Pool, seed: int | None) -> None:
        self.name, self.pool, self.width, self.count = name, pool, 1, 0
        self.seed = None if seed is None else derive(seed, "ties", name) & LOTS
        self.top, self.bottom = _Best(k, largest=True), _Best(k, largest=False)
        self.range: Tensor | None = None  # (2, C, h, w): minus the smallest, and the largest activation at each place

    def add(self, activation: Tensor, index: Tensor) -> None:
        maps = as_maps(activation, self.name)
        self.width, self.count = maps.shape[3], self.count + len(maps)
        bounds = torch.stack([-maps.amin(0), maps.amax(0)])
        if not bool(bounds.isfinite().all()):
            raise PrunescopeError(f"activations of layer {self.name!r} are not finite; are the weights?")
        self.range = bounds if self.range is None else torch.maximum(self.range, bounds)
        values, places = pooled(maps, self.pool)
        rows = index.to(values.device)[:, None].expand_as(places)
        lots = rows if self.seed is None else lots_of(rows, self.seed)
        self.top.add(values, rows, places, lots)
        # So that equal images never stand at both ends.
        self.bottom.add(values, rows, places, lots if self.seed is None else LOTS - lots)

    def extremes(self) -> Extremes:
        assert self.range is not None
        least, most = -self.range[0], self.range[1]
        dead = (least == most).all((1, 2))
        if self.count == 1:
            dead = least.amin((1, 2)) == most.amax((1, 2))
        self.top.sort()
        self.bottom.sort()
        tied = self.top.tied() | self.bottom.tied()
        return Extremes(
            self.top.ranked(self.width), self.bottom.ranked(self.width), dead.cpu().numpy(), tied.cpu().numpy()
        )


class _Best:
    """The k largest (or smallest) values of every channel so far and one more, with image and place, in no order.

    A key holds the value in its upper 32 bits and the lot in its lower ones, so that one search for the largest keys
    goes by value and then by lot.
    """

    def __init__(self, k: int, *, largest: bool) -> None:
        self.k, self.sign = k, 1 if largest else -1
        self.kept: tuple[Tensor, ...] | None = None  # keys, images, places: (C, up to k + 1) each

    def add(self, values: Tensor, images: Tensor, places: Tensor, lots: Tensor) -> None:
        """(B, C) each; of equal values the smaller lot, 0 to 2^32 - 1, goes first."""
        new: tuple[Tensor, ...] = rank_keys(self.sign * values, lots).T, images.T.int(), places.T.int()
        if self.kept is not None:
            new = tuple(torch.cat(pair, dim=1) for pair in zip(self.kept, new, strict=True))
        keys, order = new[0].topk(min(self.k + 1, new[0].shape[1]), dim=1, sorted=False)
        self.kept = keys, *(item.gather(1, order) for item in new[1:])

    def sort(self) -> None:
        """The most extreme first; once, after all batches."""
        assert self.kept is not None
        keys, order = self.kept[0].sort(dim=1, descending=True)
        self.kept = keys, *(item.gather(1, order) for item in self.kept[1:])

    def tied(self) -> Tensor:
        """Bool (C,): the k-th value and the next are the same."""
        assert self.kept is not None
        values = values_of(self.kept[0])
        return (values[:, self.k - 1 : -1] == values[:, self.k :]).any(1)

    def ranked(self, width: int) -> Ranked:
        assert self.kept is not None
        keys, images, places = (item[:, : self.k].cpu() for item in self.kept)
        places = places.long()
        rows = places.div(width, rounding_mode="floor").where(places != NOWHERE, NOWHERE)
        columns = places.remainder(width).where(places != NOWHERE, NOWHERE)
        values = self.sign * values_of(keys) + 0.0
        return Ranked(values.numpy(), images.long().numpy(), rows.numpy(), columns.numpy())


def as_maps(activation: Tensor, layer: str) -> Tensor:
    """An activation (B, C, h, w), or (B, C) as maps of one place, in float32.

    Raises:
        PrunescopeError: it has another number of axes.
    """
    if activation.ndim not in (2, 4):
        shape = tuple(activation.shape)
        raise PrunescopeError(f"layer {layer!r} gives {shape}, not (images, channels, height, width)")
    return (activation if activation.ndim == 4 else activation[:, :, None, None]).float()
