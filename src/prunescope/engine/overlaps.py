"""Where units of one layer are active, counted against the labels of the same pixels, and of other images' pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from prunescope.core.seeds import torch_generator
from prunescope.core.types import Array
from prunescope.data.segments import Coded, Segments

#: Numbers that are up-sampled or looked up at once: 16 MB of float32, 32 MB of int64.
_MOST = 1 << 22


class Labels:
    """The labels of a split's pixels, and the same images in other orders: what goes together by chance.

    Args:
        draws: how many other orders, each a random permutation of the images.
    """

    def __init__(self, segments: Segments, draws: int, seed: int) -> None:
        n, height, width = segments.shape
        self.size, self.coded = (height, width), segments.coded
        self.codes = self.coded.codes.reshape(n, -1)
        generator = torch_generator(seed, "dissection", "orders")
        orders = [torch.arange(n), *(torch.randperm(n, generator=generator) for _ in range(draws))]
        self.orders = torch.stack(orders)

    def of(self, index: Tensor) -> Tensor:
        """Codes (orders, B, pixels) of the images at `index`, first as they are."""
        return self.codes[self.orders[:, index]]


@dataclass(frozen=True, eq=False)
class _Tally:
    """What is counted at a pixel: its set of concepts where there are few sets, else each of its concepts.

    Attributes:
        columns: int64 (S, most), the counters of every set.
        sums: float64 (counters, K + 1), what the counters say of K concepts and, last, of labelled pixels.
    """

    columns: Tensor
    sums: Tensor

    @classmethod
    def of(cls, coded: Coded, counters: int) -> _Tally:
        """With a counter for each set, if there are no more of them than `counters`."""
        table = torch.cat([coded.table & coded.known[:, None], coded.known[:, None]], 1)
        if len(table) <= counters:
            return cls(torch.arange(len(table))[:, None], table.double())
        width = table.shape[1]
        found = torch.where(table, torch.arange(width), width).sort(1).values[:, : int(table.sum(1).max())]
        return cls(found, torch.cat([torch.eye(width), torch.zeros(1, width)]).double())  # the last is never read


class Overlaps:
    """Pixels at which each of U units is above its threshold (U,), by concept, for every order of the labels."""

    def __init__(self, labels: Labels, thresholds: Tensor) -> None:
        self.labels, self.thresholds, device = labels, thresholds, thresholds.device
        rows = len(labels.orders) * len(thresholds)
        tally = _Tally.of(labels.coded, _MOST // rows)
        self.columns, self.sums = tally.columns.to(device), tally.sums
        self.counts = torch.zeros(
            len(labels.orders), len(thresholds), len(tally.sums), dtype=torch.int64, device=device
        )

    def found(self) -> tuple[Array, Array]:
        """Pixels with unit and concept (orders, U, K), and with the unit and any label (orders, U); the orders after
        the first are by chance."""
        sums = (self.counts.cpu().double() @ self.sums).numpy()
        return sums[:, :, :-1], sums[:, :, -1]

    def add(self, maps: Tensor, index: Tensor) -> None:
        """Maps (B, U, h, w) of the images at `index`.

        A map that nowhere exceeds its unit's threshold does not when it is up-sampled either (bilinear values are means
        of neighbours), so that it is passed over: few are left.
        """
        image, unit = (maps.amax((2, 3)) > self.thresholds).nonzero(as_tuple=True)
        codes = self.labels.of(index).to(maps.device)
        pixels = self.labels.size[0] * self.labels.size[1]
        for part in torch.arange(len(image), device=maps.device).split(max(1, _MOST // pixels)):
            rows, units = image[part], unit[part]
            large = upsampled(maps[rows, units], self.labels.size)
            where, pixel = (large.flatten(1) > self.thresholds[units, None]).nonzero(as_tuple=True)
            self._count(codes, rows[where], units[where], pixel)

    def _count(self, codes: Tensor, image: Tensor, unit: Tensor, pixel: Tensor) -> None:
        orders, units, width = self.counts.shape
        for part in _parts(len(pixel), orders * self.columns.shape[1]):
            # One number for order, unit and counter.
            row = torch.arange(orders, device=codes.device)[:, None] * units + unit[part]
            keys = row[:, :, None] * width + self.columns[codes[:, image[part], pixel[part]].long()]
            self.counts += torch.bincount(keys.flatten(), minlength=self.counts.numel()).view_as(self.counts)


def _parts(count: int, each: int) -> Iterator[slice]:
    step = max(1, _MOST // each)
    return (slice(start, start + step) for start in range(0, count, step))


def upsampled(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (M, h, w) at the images' size (M, H, W): bilinear between the middles of places (`align_corners=False`)."""
    if maps.shape[1:] == size:
        return maps
    return interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
