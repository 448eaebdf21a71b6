"""Where a convolution's answer is taken: behind its norm, which may turn it upside down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.engine.untouched import untouched

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def behind_norms(model: nn.Module, shape: tuple[int, int, int], layers: Sequence[str]) -> dict[str, str]:
    """{layer: the batch norm that reads its output, where there is one; otherwise the layer}, in the order given.

    A norm with a negative scale makes a convolution's smallest answers the network's largest; so a filter's best images
    are those of the norm. Found by running the network once, on a black image (C, H, W); a norm that runs more than
    once is none of a single layer.
    """
    gave: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    read: dict[str, list[Tensor]] = {name: [] for name, module in model.named_modules() if isinstance(module, NORMS)}
    with untouched(model), torch.no_grad():
        for layer, into in gave.items():
            model.get_submodule(layer).register_forward_hook(_keep_output(into))
        for norm, into in read.items():
            model.get_submodule(norm).register_forward_pre_hook(_keep_input(into))
        device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
        model(torch.zeros(1, *shape, device=device))
    return {layer: _reader(outputs, read) or layer for layer, outputs in gave.items()}


def _reader(outputs: list[Tensor], read: dict[str, list[Tensor]]) -> str | None:
    found = [norm for norm, inputs in read.items() if len(inputs) == 1 and any(inputs[0] is out for out in outputs)]
    return found[0] if len(found) == 1 else None


def _keep_output(into: list[Tensor]) -> Any:
    return lambda _module, _inputs, output: into.append(output)


def _keep_input(into: list[Tensor]) -> Any:
    return lambda _module, inputs: into.append(inputs[0])
