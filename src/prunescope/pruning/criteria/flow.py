"""No data: how much of the network's signal a weight carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.mask import Mask
from prunescope.engine.sweep import logits_of
from prunescope.pruning.gradients import gradients, live_weights, some
from prunescope.pruning.scoring import Batches, Criterion, criteria


@criteria.register("synflow")
@dataclass(frozen=True)
class SynFlow(Criterion):
    """|w| dR/d|w|, R the sum of the logits of an all-ones image when every weight is |w| and nothing is added: no
    biases, norms only scale (Tanaka et al. 2020, eq. 5). In float64, since R grows with the product of all layers.

    With piecewise linear activations the scores of every layer that all signal passes sum to R (the conservation law),
    so that no layer is cut away as long as the cut is iterated.

    Attributes:
        iterations: cuts on the way, scored anew each time.
    """

    iterations: int = 100
    summary: ClassVar[str] = "share of the synaptic flow; of the images only the shape"
    source: ClassVar[str] = "Tanaka et al. 2020"
    cost: ClassVar[str] = "`iterations` x forward, backward of one image"
    needs_data: ClassVar[bool] = True  # of which only the images' shape is used
    needs_gradients: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        x, _ = next(some(batches, 1))
        model.double()
        weights = _positive(model, mask)
        with torch.enable_grad():
            flow = logits_of(model(torch.ones_like(x[:1], dtype=torch.float64))).sum()
        return {name: (weights[name].detach() * gradient).abs() for name, gradient in gradients(flow, weights).items()}


def _positive(model: nn.Module, mask: Mask) -> dict[str, nn.Parameter]:
    """Make the network linear and positive; its prunable weights."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.zeros_like(parameter) if name.endswith("bias") else parameter.abs())
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
    return live_weights(model, mask)
