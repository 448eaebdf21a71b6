"""HiRes-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prunescope.engine.attribution.base import Cam, methods


@methods.register("hirescam")
@dataclass(frozen=True)
class HiResCam(Cam):
    """Activation times gradient, place by place (Draelos and Carin 2020, eq. 3): for a network that is linear behind
    the layer the map sums to the logit but for the bias. Equal to Grad-CAM before global average pooling."""

    summary: ClassVar[str] = "HiRes-CAM: activation times gradient, place by place (Draelos and Carin 2020)"

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient).sum(dim=1).relu()
