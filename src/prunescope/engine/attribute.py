"""Attribution maps from activations and gradients."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def gradcam(activation: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2): ReLU(sum_c alpha_c A_c), alpha_c = mean over space of dy/dA_c.

    Args:
        activation, gradient: (B, C, h, w) of one layer; the gradient is of a logit, not of a loss or probability.

    Returns:
        (B, h, w), at least 0, not normalised.
    """
    alpha = gradient.mean(dim=(2, 3))
    return (activation * alpha[:, :, None, None]).sum(dim=1).relu()


def normalised(maps: Tensor) -> Tensor:
    """Maps (B, h, w) divided by their own maximum; blank maps (no positive evidence) become NaN."""
    peak = maps.amax(dim=(1, 2), keepdim=True)
    return (maps / peak).where(peak > 0, float("nan"))


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (B, h, w) at `size` (H, W), bilinear, corners not aligned."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
