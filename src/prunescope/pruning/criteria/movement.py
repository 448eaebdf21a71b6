"""Where training takes a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.pruning.gradients import gradients, live_weights, loss_of, some
from prunescope.pruning.scoring import Batches, Criterion, criteria


@criteria.register("movement")
@dataclass(frozen=True)
class Movement(Criterion):
    """-lr sum_t g_t w_t over steps of fine-tuning, g the gradient of the batch's loss: weights stay that move away from
    zero, whatever their size (Sanh et al. 2020, section 4).

    The steps are plain SGD on all parameters, under the mask and with the norms' statistics as they are. The network
    has its own weights back afterwards; retraining starts from these.

    Attributes:
        steps: of fine-tuning; the batches begin anew when they are through.
        lr: learning rate.
    """

    steps: int = 100
    lr: float = 0.001
    summary: ClassVar[str] = "how far fine-tuning moves the weight away from zero"
    source: ClassVar[str] = "Sanh et al. 2020"
    cost: ClassVar[str] = "`steps` batches forward, backward"
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True
    needs_history: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.steps < 1 or not self.lr > 0:
            raise PrunescopeError(f"steps must be at least 1 and lr above 0, got {self.steps} and {self.lr}")

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        weights = live_weights(model, list(dict(model.named_parameters())))
        moved = {name: torch.zeros_like(weights[name]) for name in mask}
        endless = chain.from_iterable(some(batches, 0) for _ in repeat(None))
        for x, y in islice(endless, self.steps):
            slopes = gradients(loss_of(model, x, y), weights)
            with torch.no_grad():
                for name, slope in slopes.items():
                    if name in moved:
                        moved[name] -= self.lr * slope * weights[name]
                    weights[name].sub_(self.lr * slope)
            mask.apply_(model)
        return moved
