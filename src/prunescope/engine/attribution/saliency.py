"""The gradient itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from prunescope.engine.attribution.base import Explainer, Heat, InputMethod, methods
from prunescope.engine.attribution.peer import captum, in_parts, logits_function


@methods.register("saliency")
@dataclass(frozen=True)
class Saliency(InputMethod):
    """The gradient of the logit (Simonyan et al. 2014), which says where it is sensitive, not what speaks for it."""

    heat: Heat = "largest"
    summary: ClassVar[str] = "the gradient's size (Simonyan et al. 2014)"
    passes: ClassVar[str] = "one forward, one backward"

    def attributor(self, model: nn.Module) -> Explainer:
        tool = captum(self.name).Saliency(logits_function(model))

        def signed(x: Tensor, target: Tensor) -> Tensor:
            return in_parts(lambda part, chosen: tool.attribute(part, target=chosen, abs=False), x, target, 1)

        return signed
