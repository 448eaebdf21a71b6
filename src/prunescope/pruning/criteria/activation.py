"""What flows into a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.pruning.gradients import some
from prunescope.pruning.scoring import Batches, Criterion, criteria


@criteria.register("wanda")
@dataclass(frozen=True)
class Wanda(Criterion):
    """|w| times the l2 norm of the input that it multiplies, over all images and positions (Sun et al. 2024, eq. 1).

    The paper lets the weights of one output compete; here they compete where the recipe's scope says.

    Attributes:
        n_batches: of training images to read; 0 is all.
    """

    n_batches: int = 10
    summary: ClassVar[str] = "|weight| x norm of its input"
    source: ClassVar[str] = "Sun et al. 2024"
    cost: ClassVar[str] = "forward"
    needs_data: ClassVar[bool] = True

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        layers = {name: model.get_submodule(name.rpartition(".")[0]) for name in mask}
        for name, layer in layers.items():
            if not isinstance(layer, (nn.Conv2d, nn.Linear)) or not name.endswith("weight"):
                raise PrunescopeError(f"criterion 'wanda' scores 2-d convolutions and linear layers, not {name}")
        squares: dict[str, Tensor] = {name: torch.zeros(()) for name in layers}

        def count(name: str) -> Any:
            def hook(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                found = _squares(layer, inputs[0].detach())
                squares[name] = squares[name].to(found) + found

            return hook

        for name, layer in layers.items():
            layer.register_forward_pre_hook(count(name))  # `cut` takes it off again
        with torch.no_grad():
            for x, _ in some(batches, self.n_batches):
                model(x)
        weights = dict(model.named_parameters())
        return {name: weights[name].detach().abs() * total.sqrt() for name, total in squares.items()}


def _squares(layer: nn.Module, x: Tensor) -> Tensor:
    """Sum of squares of what each weight multiplies, over images and positions; broadcasts to the layer's weight."""
    if isinstance(layer, nn.Linear):
        return x.square().flatten(0, -2).sum(0, keepdim=True)
    assert isinstance(layer, nn.Conv2d)
    summed = x.square().sum(0, keepdim=True)  # what follows is linear: once for the whole batch
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(summed, layer._reversed_padding_repeated_twice, mode=mode)
    patches = F.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride).sum(2)
    parts = patches.view(layer.groups, -1, *layer.kernel_size)
    return parts.repeat_interleave(layer.out_channels // layer.groups, dim=0)
