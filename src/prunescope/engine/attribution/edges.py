"""A control: edges of the image, whatever the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.engine.attribution.base import Explainer, InputMethod, methods


@methods.register("edges")
@dataclass(frozen=True)
class Edges(InputMethod):
    """Size of the brightness's slope (Sobel). It looks like an explanation and does not know the network: the sanity
    checks must find it out (Adebayo et al. 2018)."""

    summary: ClassVar[str] = "edges of the image: a control that ignores the network"
    passes: ClassVar[str] = "none"

    def attributor(self, model: nn.Module) -> Explainer:
        def signed(x: Tensor, _target: Tensor) -> Tensor:
            slope = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]).to(x)
            bright = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
            return torch.linalg.vector_norm(F.conv2d(bright, torch.stack([slope, slope.T])[:, None]), dim=1)[:, None]

        return signed
