"""The mean of every channel at every gate, from one pass."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.engine.ablation.removal import Mean
from prunescope.engine.ablation.replay import Stage


@torch.no_grad()
def channel_means(stage: Stage, batches: Iterable[Tensor]) -> Mean:
    """Means over images and places, in float64, of what every gate lets through.

    Args:
        batches: images (n, C, H, W) as the network takes them; each image counts the same, however they are batched.

    Raises:
        PrunescopeError: there is no image.
    """
    gates = {reading.gate for found in stage.readings.values() for reading in found}
    sums: dict[str, Tensor | float] = dict.fromkeys((gate.name for gate in gates), 0.0)
    images = 0
    for batch in batches:
        images += len(batch)
        values = stage.run(batch)
        for gate in gates:
            rows = values[gate].double().movedim(gate.meta["axis"], -1).flatten(0, -2)
            sums[gate.name] += rows.mean(0) * len(batch)
    if not images:
        raise PrunescopeError("the mean of channels over no image is not defined")
    return Mean({name: total / images for name, total in sums.items()})  # type: ignore[misc]
