"""Max pooling in DeepLIFT, right for more than one image and for windows that overlap.

Captum 0.9 takes the first image's gradient for all where input and reference are equal, and where windows overlap it
keeps one of the values that an input has in them rather than their sum (captum/attr/_core/deep_lift.py, `maxpool`).
"""

from __future__ import annotations

import importlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaxPool(nn.MaxPool2d):
    """`nn.MaxPool2d` by another name, under which Captum finds our rule."""


def register(model: nn.Module) -> nn.Module:
    """The network, its max poolings under the name; Captum then knows the rule."""
    for module in model.modules():
        if type(module) is nn.MaxPool2d:
            module.__class__ = MaxPool
    importlib.import_module("captum.attr._core.deep_lift").SUPPORTED_NON_LINEAR[MaxPool] = _rule
    return model


def _rule(
    module: MaxPool, inputs: Tensor, outputs: Tensor, grad_input: Tensor, grad_output: Tensor, eps: float = 1e-10
) -> Tensor:
    """The difference of a window's output goes to where image and reference have their maxima (cross maximum)."""
    (x, x0), (y, y0) = inputs.chunk(2), outputs.chunk(2)
    highest = torch.maximum(y, y0)
    with torch.enable_grad():
        leaf = inputs.detach().requires_grad_()
        pooled = F.max_pool2d(
            leaf, module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
        )
        (given,) = torch.autograd.grad(pooled, leaf, grad_output * torch.cat([highest - y0, y - highest]))
    shares = sum(given.chunk(2))
    difference = (x - x0).repeat(2, 1, 1, 1)
    assert isinstance(shares, Tensor)
    safe = torch.where(difference.abs() < eps, 1.0, difference)
    return torch.where(difference.abs() < eps, grad_input, shares.repeat(2, 1, 1, 1) / safe)
