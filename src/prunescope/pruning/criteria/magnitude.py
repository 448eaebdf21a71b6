"""Large weights stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.pruning.scoring import Batches, Criterion, criteria


@criteria.register("magnitude")
@dataclass(frozen=True)
class Magnitude(Criterion):
    """|w|^p (Han et al. 2015; Frankle and Carbin 2019 for lottery tickets).

    Attributes:
        p: ranks of single weights do not depend on it; filters and other units, whose weights' scores are summed, rank
            by their L1 norm with 1 (Li et al. 2017), by their L2 norm with 2.
    """

    p: float = 1.0
    summary: ClassVar[str] = "absolute value of the weight; L1 or L2 norm of a unit"
    source: ClassVar[str] = "Han et al. 2015"

    def __post_init__(self) -> None:
        if not self.p > 0:
            raise PrunescopeError(f"p must be above 0, got {self.p}")

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        parameters = dict(model.named_parameters())
        sizes = {name: parameters[name].detach().abs() for name in mask}
        return sizes if self.p == 1 else {name: size.double() ** self.p for name, size in sizes.items()}


@criteria.register("lamp")
@dataclass(frozen=True)
class Lamp(Criterion):
    """w^2 over the sum of w'^2 of all kept weights w' of the layer that are no smaller (Lee et al. 2021, eq. 3): the
    share of the layer that goes when everything smaller has gone. Made for scope `global`: in one layer it ranks as
    magnitude does. The last weight of a layer scores 1, so that no layer is cut away before every layer is down to one.
    """

    summary: ClassVar[str] = "weight^2 over all that is no smaller in its layer"
    source: ClassVar[str] = "Lee et al. 2021"

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        parameters = dict(model.named_parameters())
        return {name: _lamp(parameters[name].detach(), kept) for name, kept in mask.items()}


def _lamp(weight: Tensor, kept: Tensor) -> Tensor:
    squares = (weight.double() * kept.to(weight.device)).square().flatten()
    # Falling, and stable: of equal weights the first in position is the larger one, as in the cut.
    order = torch.sort(squares, descending=True, stable=True).indices
    sums = squares[order].cumsum(0)
    scores = torch.zeros_like(squares)
    scores[order] = squares[order] / sums.clamp_min(torch.finfo(sums.dtype).tiny)
    return scores.view_as(weight)
