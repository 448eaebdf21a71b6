"""What the layer has twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from prunescope.core.mask import Mask
from prunescope.pruning.scoring import Batches, Criterion, criteria, over_filters


@criteria.register("fpgm")
@dataclass(frozen=True)
class Fpgm(Criterion):
    """Sum of the Euclidean distances of a filter to all other filters of its layer: those nearest to the geometric
    median, which the others can stand for, go first (He et al. 2019, eq. 6). Every weight has its filter's score.
    """

    summary: ClassVar[str] = "distance of a filter to the others of its layer"
    source: ClassVar[str] = "He et al. 2019"
    per: ClassVar[Literal["weight", "filter"]] = "filter"

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        weights = dict(model.named_parameters())
        return over_filters({name: _distances(weights[name].detach(), kept) for name, kept in mask.items()}, mask)


def _distances(weight: Tensor, kept: Tensor) -> Tensor:
    """Filters that are gone already are nobody's neighbours."""
    rows, alive = weight.flatten(1).double(), kept.flatten(1).any(1).to(weight.device)
    # From inner products where there are many: ten times as fast, and of the filter itself not quite 0.
    distances = torch.cdist(rows, rows, compute_mode="use_mm_for_euclid_dist_if_necessary").fill_diagonal_(0.0)
    return (distances * alive).sum(1)
