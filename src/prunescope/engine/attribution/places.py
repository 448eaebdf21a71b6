"""Where in the image the values of a layer lie, and what a layer gives for images, with its gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.sweep import find_module, logits_of

#: Tokens that stand for no place: none, a class token, one for distillation too, or four registers too.
_PREFIXES = (1, 0, 2, 5)


def as_maps(value: object, size: tuple[int, ...], layer: str, grid: tuple[int, ...] = ()) -> Tensor:
    """What a layer gives as (B, C, h, w).

    Maps (B, C, h, w) stay; maps (B, h, w, C), as in Swin transformers, are known by their shape, which is more like
    the image's; tokens (B, T, C) are laid out in rows, those in front that stand for no place left out.

    Args:
        size: (H, W) of the images.
        grid: (h, w); () finds it: tokens lie on a grid shaped like the image, behind none, 1, 2 or 5 others.

    Raises:
        PrunescopeError: neither maps nor tokens, or tokens that do not fit.
    """
    if isinstance(value, Tensor) and value.ndim == 4:
        return value.permute(0, 3, 1, 2) if _channels_last(value, size, grid) else value
    if isinstance(value, Tensor) and value.ndim == 3:
        tokens = value.shape[1]
        height, width = grid or _grid(tokens, size, layer)
        if height * width > tokens:
            raise PrunescopeError(f"layer {layer!r} gives {tokens} tokens, fewer than a grid of {height} x {width}")
        return value[:, tokens - height * width :].transpose(1, 2).unflatten(2, (height, width))
    got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    raise PrunescopeError(f"layer {layer!r} gives {got}, not (images, channels, height, width) and not tokens")


def _channels_last(value: Tensor, size: tuple[int, ...], grid: tuple[int, ...]) -> bool:
    _, a, b, c = value.shape
    if grid:
        return (a, b) == tuple(grid) != (b, c)
    return _unlike((a, b), size) < _unlike((b, c), size)


def _unlike(sides: tuple[int, int], size: tuple[int, ...]) -> float:
    """How far a shape is from the image's; 0 for the same ratio of sides."""
    return abs(math.log(sides[0] / sides[1]) - math.log(size[0] / size[1]))


def _grid(tokens: int, size: tuple[int, ...], layer: str) -> tuple[int, int]:
    for prefix in _PREFIXES:
        places = tokens - prefix
        height = round(math.sqrt(max(places, 0) * size[0] / size[1]))
        if height and places % height == 0 and abs(_unlike((height, places // height), size)) < 1e-6:
            return height, places // height
    raise PrunescopeError(
        f"layer {layer!r} gives {tokens} tokens, which fill no grid shaped like images of {size[0]} x {size[1]}; "
        "say how they lie: grid: [height, width]"
    )


def both_of(model: nn.Module, layer: str, x: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """What a module gives for normalised images x (B, C, H, W), and the gradient of a logit towards it.

    Args:
        target: class index per image, (B,); None: the network's own predictions.

    Raises:
        PrunescopeError: unknown layer, one that does not run, or one that gives no tensor.
    """
    kept: dict[str, Tensor] = {}

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: object) -> Tensor:
        if not isinstance(output, Tensor):
            raise PrunescopeError(f"layer {layer!r} gives {type(output).__name__}, not a tensor; name one inside it")
        kept[layer] = output if output.requires_grad else output.detach().requires_grad_()
        return kept[layer].clone()  # an in-place ReLU behind the layer must not reach what was kept

    handle = find_module(model, layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = logits_of(model(x.detach()))
            if layer not in kept:
                raise PrunescopeError(f"layer {layer!r} does not run when the network is evaluated")
            chosen = logits.argmax(1) if target is None else target
            (gradient,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), kept[layer])
    finally:
        handle.remove()
    return kept[layer].detach(), gradient
