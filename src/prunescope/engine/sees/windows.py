"""Parts of an image that are enough to know a layer's answer at one place.

A network that slides over the image gives the same answer when it sees a part only, as long as the part holds the
place's receptive field, starts at a multiple of the layer's stride, and shares the image's border where the field
touches it. Early layers see a thousandth of the image, and cost as little.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Windows:
    """One window for each place of a layer's output (h, w); all have the same size, and may be the whole image.

    Attributes:
        size: rows and columns of pixels.
        tops, lefts: (h,), (w,): first row of the windows for each row of places, first column for each column.
        rows, columns: (h,), (w,): where the place lies on the layer's output for the window.
        whole: whether they are the image.
    """

    size: tuple[int, int]
    tops: Tensor
    lefts: Tensor
    rows: Tensor
    columns: Tensor
    whole: bool

    def cut(self, images: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, C, H, W) -> (their windows for one place each, the places' rows, columns); places are (B,)."""
        if self.whole:
            return images, rows, columns
        height, width = self.size
        corners = zip(images, self.tops[rows].tolist(), self.lefts[columns].tolist(), strict=True)
        parts = torch.stack([image[:, top : top + height, left : left + width] for image, top, left in corners])
        return parts, self.rows[rows], self.columns[columns]


def windows_of(fields: Tensor, shape: tuple[int, int, int], *, whole: bool = False) -> Windows:
    """The smallest windows for a layer with these receptive fields (h, w, 4) in images of `shape` (C, H, W).

    Where the fields are not the same box shifted by a constant step, the windows are the image; also with `whole`.
    """
    _, height, width = shape
    down, across = fields[:, 0, :2], fields[0, :, 2:]
    apart = bool((fields[..., :2] == down[:, None]).all() and (fields[..., 2:] == across).all())
    high, tops, rows = _axis(down, height, whole=whole or not apart)
    wide, lefts, columns = _axis(across, width, whole=whole or not apart)
    return Windows((high, wide), tops, lefts, rows, columns, (high, wide) == (height, width))


def _axis(spans: Tensor, size: int, *, whole: bool) -> tuple[int, Tensor, Tensor]:
    """Along one axis: (length of the windows, start of each place's window, the place's number in it)."""
    places, (first, last) = torch.arange(len(spans)), spans.unbind(1)
    extent = int((last - first).max()) + 1
    uncut = ((first > 0) & (last < size - 1) & (last - first == extent - 1)).nonzero().flatten()
    steps = first[uncut[0] : uncut[-1] + 1].diff().unique() if len(uncut) else uncut
    # Fields that padding cuts within the image, behind dilated kernels, look nearer to each other than they are: then
    # there are fewer places than this step would make.
    if not whole and len(steps) == 1 and steps > 0 and len(spans) > (size - extent) // int(steps):
        step = int(steps)
        length = extent + step + (size - extent - step) % step  # the last window ends with the image
        starts = (first // step * step).clamp(max=size - length)
        starts[: uncut[0]], starts[uncut[-1] + 1 :] = 0, size - length  # what the border cuts needs the border
        held = (starts <= first) & (last < starts + length) | (last < first)
        if length < size and bool(held.all()):
            return length, starts, places - starts // step
    return size, torch.zeros_like(places), places
