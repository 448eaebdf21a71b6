"""Input times gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from prunescope.engine.attribution.base import Explainer, InputMethod, methods
from prunescope.engine.attribution.peer import captum, in_parts, logits_function


@methods.register("input_x_gradient")
@dataclass(frozen=True)
class InputXGradient(InputMethod):
    """Normalised pixel times gradient (Shrikumar et al. 2016): a pixel of the data's mean colour has none."""

    summary: ClassVar[str] = "normalised pixel times gradient (Shrikumar et al. 2016)"
    passes: ClassVar[str] = "one forward, one backward"

    def attributor(self, model: nn.Module) -> Explainer:
        tool = captum(self.name).InputXGradient(logits_function(model))

        def signed(x: Tensor, target: Tensor) -> Tensor:
            return in_parts(lambda part, chosen: tool.attribute(part, target=chosen), x, target, 1)

        return signed
