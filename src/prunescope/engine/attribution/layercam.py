"""Layer-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prunescope.engine.attribution.base import Cam, methods


@methods.register("layercam")
@dataclass(frozen=True)
class LayerCam(Cam):
    """Activation times the positive part of the gradient, place by place (Jiang et al. 2021, eq. 5 to 7): sharp at
    early layers too."""

    summary: ClassVar[str] = "Layer-CAM: activation times positive gradient, place by place (Jiang et al. 2021)"

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return (activation * gradient.relu()).sum(dim=1).relu()
