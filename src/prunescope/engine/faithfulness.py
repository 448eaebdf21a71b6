"""Does a network rely on what a heat map shows? Deletion, insertion (Petsiuk et al. 2018), ROAD (Rong et al. 2022).

All three take away, or put in, an exact number of pixels in the order of the map, and watch the probability of a class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.engine.attribute import upsample
from prunescope.engine.attribution.peer import rows_for
from prunescope.engine.imputation import imputed
from prunescope.engine.sweep import logits_of

Canvas = Literal["mean", "blur"]
#: Images, which of their pixels are gone, and which images they are: altered images.
Alter = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Protocol:
    """How pixels are taken away.

    Attributes:
        steps: of the deletion and insertion curves, of as many pixels each (to within one).
        deletion: what deleted pixels become: `mean` the data's mean colour, `blur` the blurred image.
        insertion: what the image is before pixels are put in.
        shares: of pixels that ROAD takes away, above 0 and below 1; none: no ROAD.
        noise: standard deviation of what ROAD adds to imputed pixels, in normalised units.
        seed: of the noise.
        rows: altered images that run at once, which bounds the memory; 0: 64 on a CPU, 512 elsewhere.
    """

    steps: int = 16
    deletion: Canvas = "mean"
    insertion: Canvas = "blur"
    shares: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    noise: float = 0.01
    seed: int = 0
    rows: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rows < 0 or not self.noise >= 0:
            raise PrunescopeError(f"faithfulness: steps >= 1, rows and noise >= 0, got {self}")
        if not all(0 < share < 1 for share in self.shares):
            raise PrunescopeError(f"faithfulness: shares lie between 0 and 1, got {list(self.shares)}")

    def counts(self, pixels: int) -> list[int]:
        """Pixels that are gone at each of the steps + 1 points of a curve, from none to all."""
        return [step * pixels // self.steps for step in range(self.steps + 1)]

    def taken(self, pixels: int) -> list[int]:
        """Pixels that ROAD takes away, at least one and not all."""
        return [min(max(round(share * pixels), 1), pixels - 1) for share in self.shares]


@dataclass(frozen=True, eq=False)
class Curves:
    """Probability of the class of N images, float32, NaN for images whose map is blank.

    Attributes:
        deletion, insertion: (N, steps + 1), with ever more of the pixels deleted, or put in, the hottest first.
        morf, lerf: (N, shares): imputed without the hottest, and without the coldest pixels.
    """

    deletion: Tensor
    insertion: Tensor
    morf: Tensor
    lerf: Tensor

    def areas(self) -> dict[str, Tensor]:
        """{`deletion`, `insertion`: area under the curve (N,), 0 to 1; `road`: half the mean of lerf - morf (N,), -1/2
        to 1/2}: deletion is better when small, the others when large; without shares there is no `road`."""
        found = {name: _area(getattr(self, name)) for name in ("deletion", "insertion")}
        return found | ({"road": (self.lerf - self.morf).mean(1) / 2} if self.morf.shape[1] else {})


def _area(curve: Tensor) -> Tensor:
    return (curve[:, 1:] + curve[:, :-1]).mean(1) / 2


def ranks(maps: Tensor) -> Tensor:
    """Place of every pixel of maps (B, H, W) from the hottest, 0, on; of equal ones the first in reading order.

    >>> ranks(torch.tensor([[[0.0, 2.0], [2.0, 1.0]]])).tolist()
    [[[3, 0], [1, 2]]]
    """
    order = maps.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places).view(maps.shape)


def random_maps(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Maps (count, H, W) that say nothing: the control."""
    return torch.rand(count, *size, generator=generator)


@torch.no_grad()
def faithfulness_curves(
    model: nn.Module, x: Tensor, maps: Tensor, target: Tensor, protocol: Protocol | None = None
) -> Curves:
    """Curves of images x (B, C, H, W), normalised, with a class each (B,), in the order of their maps (B, h, w).

    Maps smaller than the images are interpolated; a map without a value above 0 (or NaN) has no order. An image's
    curves do not depend on which others are in the batch. The model must be in eval mode.
    """
    how = protocol or Protocol()
    size = (x.shape[2], x.shape[3])
    blank = ~(maps.amax((1, 2)) > 0)
    large = maps.float() if maps.shape[1:] == size else upsample(maps.float(), size)
    order = ranks(large.nan_to_num(0.0))
    watch = _Watch(model, how.rows or rows_for(x.device))
    counts = how.counts(order[0].numel())
    grey: dict[str, Callable[[Tensor], Tensor]] = {"mean": torch.zeros_like, "blur": blurred}
    deletion = watch.replaced(x, grey[how.deletion](x), (order, target), counts)
    insertion = watch.replaced(grey[how.insertion](x), x, (order, target), counts)
    taken, last = how.taken(order[0].numel()), order[0].numel() - 1
    noise = how.noise * torch.randn(x.shape[1:], generator=torch_generator(how.seed, "road")).to(x)
    morf, lerf = (watch.imputed(x, noise, (places, target), taken) for places in (order, last - order))
    return Curves(*(curve.masked_fill(blank[:, None], float("nan")) for curve in (deletion, insertion, morf, lerf)))


def blurred(x: Tensor) -> Tensor:
    """Images after a Gaussian blur; its standard deviation is a sixteenth of their shorter side, edges are mirrored."""
    side = min(x.shape[2:])
    sigma = max(side / 16, 0.5)
    radius = min(round(2 * sigma), side - 1)
    away = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(away**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    planes = F.pad(x.flatten(0, 1)[:, None], (radius,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(planes, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1)).view(x.shape)


@dataclass(frozen=True)
class _Watch:
    """The probability of a class in altered images, `rows` at a time."""

    model: nn.Module
    rows: int

    def replaced(self, x: Tensor, by: Tensor, asked: tuple[Tensor, Tensor], counts: Sequence[int]) -> Tensor:
        """(B, counts): when so many of the first pixels are those of another image."""
        return self._over(x, asked, counts, lambda part, gone, rows: torch.where(gone[:, None], by[rows], part))

    def imputed(self, x: Tensor, noise: Tensor, asked: tuple[Tensor, Tensor], counts: Sequence[int]) -> Tensor:
        """(B, counts): when so many of the first pixels are imputed from the others."""
        return self._over(x, asked, counts, lambda part, gone, _: imputed(part, gone) + noise * gone[:, None])

    def _over(self, x: Tensor, asked: tuple[Tensor, Tensor], counts: Sequence[int], alter: Alter) -> Tensor:
        order, target = asked
        if not counts:
            return x.new_zeros(len(x), 0)
        row = torch.arange(len(x), device=x.device).repeat_interleave(len(counts))
        limit = torch.tensor(counts, device=x.device).repeat(len(x))
        found = []
        for rows, limits in zip(row.split(self.rows), limit.split(self.rows), strict=True):
            altered = alter(x[rows], order[rows] < limits[:, None, None], rows)
            altered = altered.contiguous(memory_format=torch.channels_last)
            probability = logits_of(self.model(altered)).float().softmax(dim=1)
            found.append(probability.gather(1, target[rows, None])[:, 0])
        return torch.cat(found).view(len(x), len(counts))
