"""Channels that are out, as a mask over weights: so that training keeps them out."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.engine.ablation.capture import capture
from prunescope.engine.ablation.channelwise import NORMS
from prunescope.engine.ablation.gates import is_cat, offsets
from prunescope.engine.ablation.nodes import is_call_of
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.units import Units, units_of


def removal_mask(model: nn.Module, gone: Units, shape: tuple[int, ...]) -> Mask:
    """What has to be zero for these channels to be zero wherever they are read, for `fit(..., mask=...)`.

    Weights and biases of the channels, and scales and shifts of the norms between them and their readers. Unlike the
    granularity `channel` it takes a channel out of one layer only, also where a sum ties it to those of others.

    Args:
        gone: {layer: channels}.
        shape: (C, H, W) of one image.

    Raises:
        Untraceable: torch.fx cannot follow the network.
        PrunescopeError: an unknown layer or channel, or something between a channel and its readers makes zero another
            number (a sigmoid, a norm without a scale).
    """
    stage = Stage(capture(model, shape, fold=False))
    named = units_of(stage.channels, gone)
    parameters, kept = dict(model.named_parameters()), dict[str, torch.Tensor]()
    for layer, channels in named.items():
        for module, offset in _between(stage, layer):
            for name in (f"{module}.weight", f"{module}.bias"):
                if name in parameters:
                    kept.setdefault(name, torch.ones(parameters[name].shape, dtype=torch.bool))
                    kept[name][[channel + offset for channel in channels]] = False
    mask = Mask(kept)
    _require_zeros(model, mask, named, shape)
    return mask


def _between(stage: Stage, layer: str) -> Iterator[tuple[str, int]]:
    """The layer, and the norms up to its readers: (module, position of the layer's first channel)."""
    gates = {reading.gate for reading in stage.readings[layer]}
    frontier = [(node, 0) for node in stage.traced.graph.nodes if node.op == "call_module" and node.target == layer]
    while frontier:
        node, offset = frontier.pop()
        if node.target == layer or is_call_of(node, NORMS):
            yield str(node.target), offset
        for user in node.users:
            starts = offsets(user, node) if is_cat(user) else [0]
            frontier += [(user, offset + start) for start in starts if user not in gates]


@torch.no_grad()
def _require_zeros(model: nn.Module, mask: Mask, gone: Units, shape: tuple[int, ...]) -> None:
    masked = copy.deepcopy(model)
    mask.apply_(masked)
    stage = Stage(capture(masked, shape, fold=False))
    first = next(masked.parameters())
    values = stage.run(torch.linspace(-1, 1, 2 * shape[0] * shape[1] * shape[2]).view(2, *shape).to(first))
    for layer, channels in gone.items():
        for reading in stage.readings[layer]:
            at = reading.index(torch.tensor(channels, dtype=torch.int64)).flatten()
            if bool(values[reading.gate].movedim(reading.axis, 0)[at].any()):
                raise PrunescopeError(
                    f"weights of zero do not keep channels of {layer!r} out: before it is read something makes zero "
                    f"another number ({reading.gate.args[0]})"
                )
