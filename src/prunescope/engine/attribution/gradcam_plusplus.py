"""Grad-CAM++."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prunescope.engine.attribution.base import Cam, methods


@methods.register("gradcam++")
@dataclass(frozen=True)
class GradCamPlusPlus(Cam):
    """Channels weighed by a weighted mean of their positive gradients (Chattopadhay et al. 2018, eq. 19).

    The score is the exponential of the logit, so that the second and third derivatives are powers of the first. The
    paper means a layer behind a ReLU; where activations may be negative a weight can be as large as it likes.
    """

    summary: ClassVar[str] = "Grad-CAM++: several objects of a class share the heat (Chattopadhay et al. 2018)"

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        square = gradient**2
        below = 2 * square + activation.sum(dim=(2, 3), keepdim=True) * square * gradient
        # Where the gradient is 0 so is alpha; where the denominator vanishes alpha is not defined, and left out.
        alpha = torch.where(below.abs() > torch.finfo(below.dtype).tiny, square / below, 0.0)
        weights = (alpha * gradient.relu()).sum(dim=(2, 3), keepdim=True)
        return (weights * activation).sum(dim=1).relu()
