"""Large weights stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from prunescope.core.mask import Mask
from prunescope.pruning.scoring import Batches, Criterion, criteria


@criteria.register("magnitude")
@dataclass(frozen=True)
class Magnitude(Criterion):
    """|w| (Han et al. 2015; Frankle and Carbin 2019 for lottery tickets)."""

    summary: ClassVar[str] = "absolute value of the weight (Han et al. 2015)"

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        parameters = dict(model.named_parameters())
        return {name: parameters[name].detach().abs() for name in mask}
