"""Score-CAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.attribute import upsample
from prunescope.engine.attribution.base import Explainer, LayerMethod, methods
from prunescope.engine.attribution.peer import folded_function, rows_for
from prunescope.engine.attribution.places import as_maps, both_of


@methods.register("scorecam")
@dataclass(frozen=True)
class ScoreCam(LayerMethod):
    """Channels weighed by the logit of the image seen through them (Wang et al. 2020, algorithm 1): no gradients.

    Attributes:
        chunk: masked images that run at once, of several images and channels, which bounds the memory; 0: 64 on a CPU,
            512 elsewhere.
    """

    chunk: int = 0
    summary: ClassVar[str] = "Score-CAM: channels weighed by what the image shows through them (Wang et al. 2020)"
    passes: ClassVar[str] = "one forward for every channel"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk < 0:
            raise PrunescopeError(f"scorecam: chunk must be 0 (chosen) or more, got {self.chunk}")

    def explainer(self, model: nn.Module) -> Explainer:
        layer, logits = self.place(model), folded_function(model)

        @torch.no_grad()
        def maps(x: Tensor, target: Tensor) -> Tensor:
            activation = as_maps(both_of(model, layer, x, target)[0], x.shape[2:], layer, self.grid)
            weights = self._scores(logits, x, target, activation).softmax(dim=1)
            return (weights[:, :, None, None] * activation).sum(dim=1).relu()

        return maps

    def _scores(self, logits: Callable[[Tensor], Tensor], x: Tensor, target: Tensor, activation: Tensor) -> Tensor:
        """Logits (B, C) of the images multiplied with every channel, enlarged and then scaled to 0 .. 1."""
        image = torch.arange(len(x), device=x.device).repeat_interleave(activation.shape[1])
        found, chunk = [], self.chunk or rows_for(x.device)
        for rows, part in zip(image.split(chunk), activation.flatten(0, 1).split(chunk), strict=True):
            large = upsample(part, (x.shape[2], x.shape[3]))
            low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
            large = (large - low) / (high - low).clamp_min(1e-8)
            masked = (x[rows] * large[:, None]).contiguous(memory_format=torch.channels_last)
            found.append(logits(masked).gather(1, target[rows, None])[:, 0].float())
        return torch.cat(found).view(activation.shape[:2])
