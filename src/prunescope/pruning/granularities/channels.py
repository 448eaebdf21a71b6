"""Units that follow the channels of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.models.layers import CONVOLUTIONS, execution_order, penultimate
from prunescope.pruning.granularity import Units, granularities


@granularities.register("filter")
@dataclass(frozen=True)
class Filters(Units):
    """All weights of an output channel (or neuron), as `torch.nn.utils.prune.ln_structured` with `dim=0`. The head's
    outputs are the classes: it is left alone."""

    summary: ClassVar[str] = "output channels and neurons"
    plural: ClassVar[str] = "filters"

    @property
    def whole_filters(self) -> bool:
        return True

    def units(self, shape: torch.Size, groups: int) -> Tensor:
        return torch.arange(shape[0]).view(-1, *[1] * (len(shape) - 1))

    def spares(self, model: nn.Module) -> tuple[str, ...]:
        return (penultimate(model),)


@granularities.register("connection")
@dataclass(frozen=True)
class Connections(Units):
    """All weights that read an input channel (or feature), as `ln_structured` with `dim=1`. The mask is kept through
    retraining. The first layer reads the image: it is left alone."""

    summary: ClassVar[str] = "input channels and features"
    plural: ClassVar[str] = "input channels"

    def units(self, shape: torch.Size, groups: int) -> Tensor:
        _require_two(shape, self.name)
        group = torch.arange(shape[0]) // (shape[0] // groups)
        units = group[:, None] * shape[1] + torch.arange(shape[1])[None]
        return units.view(*units.shape, *[1] * (len(shape) - 2))

    def spares(self, model: nn.Module) -> tuple[str, ...]:
        weighted = {name for name, module in model.named_modules() if isinstance(module, (*CONVOLUTIONS, nn.Linear))}
        return tuple(name for name in execution_order(model) if name in weighted)[:1]


@granularities.register("kernel")
@dataclass(frozen=True)
class Kernels(Units):
    """The weights between one input and one output channel: a 3 x 3 slice, say."""

    summary: ClassVar[str] = "spatial kernels between two channels"
    plural: ClassVar[str] = "kernels"

    def units(self, shape: torch.Size, groups: int) -> Tensor:
        _require_two(shape, self.name)
        units = torch.arange(shape[0] * shape[1]).view(shape[0], shape[1])
        return units.view(*units.shape, *[1] * (len(shape) - 2))


def _require_two(shape: torch.Size, name: str) -> None:
    if len(shape) < 2:
        raise PrunescopeError(f"granularity {name!r} cuts weights of convolutions and linear layers only")
