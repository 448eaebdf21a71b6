"""Any weight stays: the criterion that every other one has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.mask import Mask
from prunescope.core.seeds import torch_generator
from prunescope.pruning.scoring import Batches, Criterion, criteria


@criteria.register("random")
@dataclass(frozen=True)
class Random(Criterion):
    """Uniform random scores from the seed."""

    summary: ClassVar[str] = "uniform random scores: the baseline"
    needs_seed: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        generator = torch_generator(seed, "random criterion")
        return {name: torch.rand(kept.shape, generator=generator) for name, kept in mask.items()}
