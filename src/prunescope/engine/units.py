"""The units of a layer: which layers have some, and one number per image for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.models.layers import CONVOLUTIONS, NORMS, execution_order, is_auxiliary, matches, require_matches

#: What a layer with units is: `conv`, `linear`, or `norm` (batch, layer, group).
Kind = Literal["conv", "linear", "norm"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: How the positions of a unit become one number per image: their mean, the largest, or the one in the middle.
Pool = Literal["mean", "max", "centre"]
_TYPES = {"conv": CONVOLUTIONS, "linear": (nn.Linear,), "norm": NORMS}


def unit_layers(model: nn.Module, layers: Sequence[str] = (), kinds: Sequence[Kind] = KINDS) -> dict[str, Kind]:
    """{layer: its kind}, in the order in which the network runs them; auxiliary heads do not run.

    Args:
        layers: names or patterns (`features.*`); none: all of these kinds.

    >>> unit_layers(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)))
    {'0': 'conv', '1': 'norm', '3': 'linear'}

    Raises:
        PrunescopeError: an unknown kind, a pattern that matches nothing, or no such layer.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise choices("kind of layer", kind, KINDS)
    found = {name: kind for name, kind in _all(model).items() if kind in kinds}
    if layers:
        require_matches(layers, found, "layers")
        found = {name: kind for name, kind in found.items() if any(matches(name, item) for item in layers)}
    if not found:
        raise PrunescopeError(f"{type(model).__name__} has no layer of kind {' or '.join(kinds)} that runs")
    return found


def behind_norms(model: nn.Module, layers: Sequence[str] = (), *, what: str = "units") -> dict[str, str]:
    """{convolution: the module whose output is watched}: its batch norm where that runs right behind it.

    Args:
        layers: names or patterns of convolutions; none: all that run.
        what: for messages.

    Raises:
        PrunescopeError: a pattern that matches nothing, or no convolution.
    """
    order, modules = execution_order(model), dict(model.named_modules())
    behind = dict(zip(order, [*order[1:], ""], strict=True))
    known = [name for name in order if isinstance(modules[name], CONVOLUTIONS) and not is_auxiliary(name)]
    if layers:
        require_matches(layers, known, "layers")
        known = [name for name in known if any(matches(name, pattern) for pattern in layers)]
    if not known:
        raise PrunescopeError(f"{what}: {type(model).__name__} has no convolutions")
    normed = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return {name: behind[name] if isinstance(modules.get(behind[name]), normed) else name for name in known}


def _all(model: nn.Module) -> dict[str, Kind]:
    modules = dict(model.named_modules())
    # The parts of torch's attention are read by it and never called.
    inside = [f"{name}." for name, module in modules.items() if isinstance(module, nn.MultiheadAttention)]
    order = [name for name in execution_order(model) if not name.startswith(tuple(inside))]
    return {name: kind for name in order for kind in KINDS if isinstance(modules[name], _TYPES[kind])}


def pooled_units(module: nn.Module, output: object, layer: str, pool: Pool = "mean") -> Tensor:
    """One number per image and unit, (B, units) float32, detached, a copy: of maps, tokens and vectors alike.

    Units are the last axis of linear layers and layer norms, else the second one. "centre" is at place size // 2 of
    every other axis.

    >>> pooled_units(nn.Linear(2, 3), torch.ones(4, 7, 3), "fc").shape
    torch.Size([4, 3])

    Raises:
        PrunescopeError: the output is not a tensor of images x units.
    """
    if not isinstance(output, Tensor) or output.ndim < 2:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PrunescopeError(f"layer {layer!r} gives {got}, not units of images; name a layer inside it")
    units = output.detach().movedim(_axis(module, output), 1)
    if units.ndim == 2 or pool == "centre":
        for size in units.shape[2:]:
            units = units.select(2, size // 2)
        return units.to(torch.float32, copy=True)  # what comes next in the network may overwrite the output
    flat = units.float().flatten(2)
    return flat.mean(2) if pool == "mean" else flat.amax(2)


def _axis(module: nn.Module, output: Tensor) -> int:
    if type(module) is nn.LayerNorm or isinstance(module, nn.Linear):
        return -1
    # The LayerNorm2d of torchvision and timm turns maps, normalises their channels and turns them back.
    if isinstance(module, nn.LayerNorm) and output.shape[1] != module.normalized_shape[-1]:
        return -1
    return 1
