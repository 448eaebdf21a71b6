"""Whether everything behind a layer is linear, by the network's structure or only at the images at hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from prunescope.core.seeds import torch_generator
from prunescope.engine.sweep import find_module, logits_of
from prunescope.engine.untouched import untouched
from prunescope.probes.tcav.sensitivity import ROUNDING

#: How far activations are moved, in powers of 10 of their root mean square, the first image's least, the last's most:
#: a large bias can keep a ReLU on for a long way.
_NEAREST, _FARTHEST = 1.0, 7.0

BY_STRUCTURE = (
    "the gradient of a class's logit is the same at every image (what lies behind the layer is linear, such as a "
    "global average and one linear layer), so that a score is 0 or 1 for all images of a class"
)
AT_THESE_IMAGES = (
    "the gradient of a class's logit is the same at every test image (what this network's weights leave behind the "
    "layer is linear at these images), so that a score is 0 or 1 for all images of a class"
)


def linear_behind(model: nn.Module, layer: str, x: Tensor) -> bool:
    """Whether the gradient at the layer stays the same when its output is moved far away, each image's in its own way.

    A heavily pruned network can be linear at all images that there are, though its layers are not: then it is False.

    Args:
        layer: as in `Needs.layers`.
        x: some normalised images (B, C, H, W), two or more.
    """
    name, _, side = layer.partition(":")
    kept: list[Tensor] = []

    def moved(value: Tensor) -> Tensor:
        shape = (len(value), value.shape[1], 1, 1) if value.ndim == 4 else (len(value), 1, value.shape[-1])
        noise = torch.randn(shape if value.ndim > 2 else tuple(value.shape), generator=torch_generator(0, "moved"))
        size = value.detach().square().mean().sqrt().clamp_min(1e-3)
        far = torch.logspace(_NEAREST, _FARTHEST, len(value)).view(-1, *[1] * (value.ndim - 1))
        kept.append((value.detach() + size * (far * noise).to(value)).requires_grad_())
        return kept[-1].clone()

    def before(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (moved(inputs[0]), *inputs[1:])

    with untouched(model), torch.enable_grad():
        module = find_module(model, name)
        if side == "input":
            module.register_forward_pre_hook(before)
        else:
            module.register_forward_hook(lambda _module, _inputs, output: moved(output))
        logits = logits_of(model(x)).float()
        mix = torch.randn(logits.shape[1], generator=torch_generator(0, "mix")).to(logits)
        (gradient,) = torch.autograd.grad((logits @ mix).sum(), kept[-1])
    return bool((gradient - gradient[:1]).abs().max() <= ROUNDING * gradient.abs().max())
