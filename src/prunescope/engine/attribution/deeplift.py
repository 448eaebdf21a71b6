"""DeepLIFT."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.attribution.base import Explainer, InputMethod, methods
from prunescope.engine.attribution.max_pool import register
from prunescope.engine.attribution.peer import CHECKED, captum, in_parts
from prunescope.engine.attribution.rewritten import rewritten


@methods.register("deeplift")
@dataclass(frozen=True)
class DeepLift(InputMethod):
    """DeepLIFT with the rescale rule (Shrikumar et al. 2017) from the data's mean colour, on a copy of the network.

    It applies where every step is linear, an addition, a max pooling or a ReLU (or ELU, sigmoid, tanh, softplus). There
    attributions sum to the difference of the two logits, exactly; of the first images that is checked, and a network
    in which they do not (products of maps, GELU, layer norm ...) is refused.
    """

    summary: ClassVar[str] = "differences from a grey image, step by step (Shrikumar et al. 2017)"
    passes: ClassVar[str] = "one forward and one backward of two images"

    def attributor(self, model: nn.Module) -> Explainer:
        package = captum(self.name)
        own = register(rewritten(model, folded=True))
        tool, checked = package.DeepLift(own, eps=1e-6), list[bool]()

        def part_of(part: Tensor, chosen: Tensor) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it says that it sets hooks
                try:
                    found: Tensor = tool.attribute(part, baselines=torch.zeros_like(part), target=chosen).detach()
                except (RuntimeError, AssertionError, TypeError) as error:
                    raise _refusal(model, str(error).splitlines()[0]) from error
            if not checked:
                _require_complete(model, own, (part[:CHECKED], chosen[:CHECKED]), found[:CHECKED])
                checked.append(True)
            return found

        return lambda x, target: in_parts(part_of, x, target, 2)


def _require_complete(model: nn.Module, own: nn.Module, images: tuple[Tensor, Tensor], found: Tensor) -> None:
    x, target = images
    with torch.no_grad():
        logits = own(torch.cat([x, torch.zeros_like(x)])).gather(1, target.repeat(2)[:, None])[:, 0]
    before, after = logits[len(x) :], logits[: len(x)]
    rounding = 1e-5 * torch.maximum(before.abs(), after.abs())
    scale = (after - before).abs() + 0.01 * found.flatten(1).abs().sum(1) + rounding + 1e-30
    gap = float(((after - before - found.flatten(1).sum(1)).abs() / scale).max())
    if not gap <= 0.01:
        raise _refusal(
            model, f"its attributions miss the difference of the logits by {gap:.0%}, so it holds a step that Captum's "
            "DeepLIFT does not see, such as a product of maps, GELU or a layer norm",
        )  # fmt: skip


def _refusal(model: nn.Module, why: str) -> PrunescopeError:
    return PrunescopeError(f"deeplift does not apply to {type(model).__name__}: {why}; take integrated_gradients")
