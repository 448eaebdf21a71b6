"""SmoothGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.engine.attribution.base import Explainer, Heat, InputMethod, methods
from prunescope.engine.attribution.peer import captum, folded_function, in_parts


@methods.register("smoothgrad")
@dataclass(frozen=True)
class SmoothGrad(InputMethod):
    """Mean gradient over noisy copies of the image (Smilkov et al. 2017).

    All images, and all networks, meet the same noise, so that networks differ in their maps by what they are.

    Attributes:
        samples: noisy copies.
        noise: standard deviation of the noise, as a share of the image's range from its least to its largest value.
        seed: of the noise.
    """

    heat: Heat = "largest"
    samples: int = 16
    noise: float = 0.15
    seed: int = 0
    summary: ClassVar[str] = "mean gradient over noisy copies (Smilkov et al. 2017)"
    passes: ClassVar[str] = "`samples` (16) forward and backward"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1 or not self.noise >= 0:
            raise PrunescopeError(f"smoothgrad: samples >= 1 and noise >= 0, got {self.samples} and {self.noise}")

    def attributor(self, model: nn.Module) -> Explainer:
        tool = captum(self.name).Saliency(folded_function(model))

        def part_of(part: Tensor, chosen: Tensor) -> Tensor:
            generator = torch_generator(self.seed, "smoothgrad", *part.shape[1:])
            noise = torch.randn(self.samples, *part.shape[1:], generator=generator).to(part)
            reach = self.noise * (part.amax((1, 2, 3)) - part.amin((1, 2, 3))).detach()
            noisy = part.detach()[:, None] + reach[:, None, None, None, None] * noise
            every = chosen.repeat_interleave(self.samples)
            found: Tensor = tool.attribute(noisy.flatten(0, 1).requires_grad_(), target=every, abs=False)
            return found.unflatten(0, (-1, self.samples)).mean(1)

        return lambda x, target: in_parts(part_of, x, target, self.samples)
