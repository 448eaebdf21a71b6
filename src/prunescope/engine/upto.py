"""Running a network no further than a layer."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.sweep import find_module


class _ReachedError(BaseException):
    """Ends the forward pass; no network's own `except Exception` is meant to see it."""

    def __init__(self, output: object) -> None:
        self.output = output


def output_of(model: nn.Module, layer: str, x: Tensor) -> Tensor:
    """What a module gives for normalised images x (B, C, H, W) when it first runs; what lies behind it does not run.

    The caller sets the mode and whether gradients are recorded (see `untouched`).

    Raises:
        PrunescopeError: unknown layer, one that does not run, or one that gives no tensor.
    """

    def stop(_module: nn.Module, _inputs: Any, output: object) -> NoReturn:
        raise _ReachedError(output)

    handle = find_module(model, layer).register_forward_hook(stop)
    try:
        model(x)
    except _ReachedError as reached:
        if isinstance(reached.output, Tensor):
            return reached.output
        kind = type(reached.output).__name__
        raise PrunescopeError(f"layer {layer!r} gives a {kind}, not a tensor; name one inside it") from None
    finally:
        handle.remove()
    raise PrunescopeError(f"layer {layer!r} does not run when the network is evaluated")


def values_at(maps: Tensor, channels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """One value per image, (B,): of maps (B, C, h, w) at its own channel, row and column, (B,) each."""
    images = torch.arange(len(maps), device=maps.device)
    return maps[images, channels.to(maps.device), rows.to(maps.device), columns.to(maps.device)]
