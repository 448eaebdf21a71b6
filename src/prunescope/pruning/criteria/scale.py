"""What the norm behind a layer does to its filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.pruning.answers import Follower
from prunescope.pruning.gradients import some
from prunescope.pruning.scoring import Batches, Criterion, criteria, over_filters


@criteria.register("bn-scale")
@dataclass(frozen=True)
class NormScale(Criterion):
    """|gamma| of the norm that reads the layer's output, as in network slimming (Liu et al. 2017, section 3); of batch
    norm, and of the others that scale channels. The paper trains with a penalty that makes scales small.

    The paper leaves layers without a norm alone. Here their filters come after all others, in the order of their L1
    norms, so that they go last when all compete.
    """

    summary: ClassVar[str] = "|scale| of the norm behind the layer; of the images only the shape"
    source: ClassVar[str] = "Liu et al. 2017"
    cost: ClassVar[str] = "forward of one image"
    per: ClassVar[Literal["weight", "filter"]] = "filter"
    needs_data: ClassVar[bool] = True  # of which only the images' shape is used

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        x, _ = next(some(batches, 1))
        follower = Follower(model, mask, lambda name, answer: None)
        follower.run(model, torch.zeros_like(x[:1]))
        found = {name: scale.abs() for name, scale in follower.scales.items()}
        if not found:
            raise PrunescopeError(
                "criterion 'bn-scale' goes by the scales of norms, and none reads the output of a layer that may be "
                "cut; take 'magnitude'"
            )
        largest = max(scale.max() for scale in found.values())
        for name, weight in model.named_parameters():
            if name in mask and name not in found:
                size = weight.detach().abs().flatten(1).sum(1)
                found[name] = largest + size / size.max().clamp_min(torch.finfo(size.dtype).tiny)
        return over_filters(found, mask)
