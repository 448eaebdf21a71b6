"""The images that every channel answers most and least, found in one pass over a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.engine.sweep import Needs, Pass, sweep

#: How the places of a map become one number per image: the largest, the mean, or the one in the middle.
Pool = Literal["max", "mean", "centre"]
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
            first in the split; of equal places the first in reading order.
        dead: bool (C,): no image changes the channel (its smallest and its largest activation are the same in every
            image; for a split of one image: the same at every place), so its ranking says nothing.
    """

    top: Ranked
    bottom: Ranked
    dead: Array


@dataclass(eq=False)
class ExtremesGatherer:
    """Finds the k most extreme images of every channel while a `sweep` runs. Keeps k x channels numbers.

    Attributes:
        layers: modules with outputs (B, C, h, w) or (B, C), taken as they come: of a convolution before any activation.
        k: how many images.
        pool: how a map becomes one number per image; "centre" is row h // 2, column w // 2.
        split: which split is walked.
        found: {layer: its extremes}, when the sweep is done.
    """

    layers: Sequence[str]
    k: int = 9
    pool: Pool = "max"
    split: str = "test"
    found: dict[str, Extremes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.k < 1:
            raise PrunescopeError(f"extremes: k must be at least 1 image, got {self.k}")
        if self.pool not in get_args(Pool):
            raise choices("pool", self.pool, get_args(Pool), "extremes")
        self._states = {layer: _Layer(layer, self.k, self.pool) for layer in self.layers}

    @property
    def needs(self) -> Needs:
        return Needs(layers=tuple(self.layers), splits=(self.split,))

    def update(self, batch: Pass) -> None:
        for layer, state in self._states.items():
            state.add(batch.activations[layer], batch.index)

    def finish(self) -> Record:
        """Arrays `LAYER/top.values`, `LAYER/top.images` ..., `LAYER/dead`; the same as in `found`."""
        self.found = {layer: state.extremes() for layer, state in self._states.items()}
        arrays = {f"{layer}/dead": item.dead for layer, item in self.found.items()}
        for layer, item in self.found.items():
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
    batch_size: int = 64,
    device: torch.device | str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, Extremes]:
    """{layer: the k images of `split` that each of its channels answers most and least}. The model is left as it was.

    Raises:
        PrunescopeError: unknown layer, one that does not run or gives no maps, an empty split, or activations that
            are not finite.
    """
    if not len(split):
        raise PrunescopeError("extremes: the split has no images")
    gatherer = ExtremesGatherer(tuple(dict.fromkeys(layers)), k, pool, "images")
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

    def __init__(self, name: str, k: int, pool: Pool) -> None:
        self.name, self.pool, self.width, self.count = name, pool, 1, 0
        self.top, self.bottom = _Best(k, largest=True), _Best(k, largest=False)
        self.range: Tensor | None = None  # (4, C): bounds of the images' smallest and largest activations

    def add(self, activation: Tensor, index: Tensor) -> None:
        maps = as_maps(activation, self.name)
        self.width, self.count = maps.shape[3], self.count + len(maps)
        low, high = maps.amin((2, 3)), maps.amax((2, 3))
        if not bool((low.isfinite() & high.isfinite()).all()):
            raise PrunescopeError(f"activations of layer {self.name!r} are not finite; are the weights?")
        bounds = torch.stack([-low.amin(0), low.amax(0), -high.amin(0), high.amax(0)])
        self.range = bounds if self.range is None else torch.maximum(self.range, bounds)
        values, places = pooled(maps, self.pool)
        for best in (self.top, self.bottom):
            best.add(values, index.to(values.device)[:, None].expand_as(places), places)

    def extremes(self) -> Extremes:
        assert self.range is not None
        least, most, least_high, most_high = self.range * torch.tensor([[-1.0], [1.0], [-1.0], [1.0]]).to(self.range)
        dead = (least == most) & (least_high == most_high)
        if self.count == 1:
            dead = least == most_high
        return Extremes(self.top.ranked(self.width), self.bottom.ranked(self.width), dead.cpu().numpy())


class _Best:
    """The k largest (or smallest) values of every channel so far, with image and place: (C, up to k) each."""

    def __init__(self, k: int, *, largest: bool) -> None:
        self.k, self.largest = k, largest
        self.kept: tuple[Tensor, ...] | None = None

    def add(self, *batch: Tensor) -> None:
        """Values, images and places (B, C), images in ascending order."""
        new = tuple(item.T for item in batch)
        if self.kept is not None:
            new = tuple(torch.cat(pair, dim=1) for pair in zip(self.kept, new, strict=True))
        # Stable, and earlier images stand first: so the earlier of equal ones stays first.
        order = new[0].sort(dim=1, descending=self.largest, stable=True).indices[:, : self.k]
        self.kept = tuple(item.gather(1, order) for item in new)

    def ranked(self, width: int) -> Ranked:
        assert self.kept is not None
        values, images, places = (item.cpu() for item in self.kept)
        rows = places.div(width, rounding_mode="floor").where(places != NOWHERE, NOWHERE)
        columns = places.remainder(width).where(places != NOWHERE, NOWHERE)
        return Ranked(values.numpy(), images.numpy(), rows.numpy(), columns.numpy())


def as_maps(activation: Tensor, layer: str) -> Tensor:
    """An activation (B, C, h, w), or (B, C) as maps of one place, in float32.

    Raises:
        PrunescopeError: it has another number of axes.
    """
    if activation.ndim not in (2, 4):
        shape = tuple(activation.shape)
        raise PrunescopeError(f"layer {layer!r} gives {shape}, not (images, channels, height, width)")
    return (activation if activation.ndim == 4 else activation[:, :, None, None]).float()
