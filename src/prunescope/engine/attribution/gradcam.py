"""Grad-CAM as a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prunescope.engine.attribute import gradcam
from prunescope.engine.attribution.base import Cam, methods


@methods.register("gradcam")
@dataclass(frozen=True)
class GradCam(Cam):
    """Channels weighed by their mean gradient (Selvaraju et al. 2017)."""

    summary: ClassVar[str] = "Grad-CAM: channels weighed by their mean gradient (Selvaraju et al. 2017)"

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradcam(activation, gradient)
