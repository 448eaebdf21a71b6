"""Integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.attribution.base import Explainer, InputMethod, methods
from prunescope.engine.attribution.peer import captum, folded_function, in_parts


@methods.register("integrated_gradients")
@dataclass(frozen=True)
class IntegratedGradients(InputMethod):
    """Mean gradient on the way from the data's mean colour to the image, times their difference (Sundararajan et al.
    2017): attributions sum to the difference of the two logits, as nearly as `steps` allow (Gauss-Legendre).

    Attributes:
        steps: gradients an image.
    """

    steps: int = 32
    summary: ClassVar[str] = "gradients on the way from a grey image (Sundararajan et al. 2017)"
    passes: ClassVar[str] = "`steps` (32) forward and backward"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise PrunescopeError(f"{self.name}: steps must be at least 1, got {self.steps}")

    def attributor(self, model: nn.Module) -> Explainer:
        tool = captum(self.name).IntegratedGradients(folded_function(model))

        def part_of(part: Tensor, chosen: Tensor) -> Tensor:
            found: Tensor = tool.attribute(part.detach(), baselines=0.0, target=chosen, n_steps=self.steps)
            return found.to(part.dtype)

        return lambda x, target: in_parts(part_of, x, target, self.steps)
