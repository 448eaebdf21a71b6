"""Where a channel holds nothing but zeros, taking it out changes nothing, and nothing is run."""

from __future__ import annotations

import torch
from torch import Tensor

from prunescope.engine.ablation.chunk import Chunk
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.worlds import units

#: Share of silent worlds below which picking out the others costs more than it saves.
WORTHWHILE = 0.1


def silent(stage: Stage, chunk: Chunk, layer: str, channels: Tensor) -> Tensor:
    """Whether each channel is zero at all places where it is read: bool (channels, images)."""
    found = torch.ones(len(channels), len(chunk), dtype=torch.bool, device=channels.device)
    for at in stage.readings[layer]:
        if at.gate.meta["where"] != 0 or found.numel() == 0:
            return torch.zeros_like(found)
        value = units(chunk.base[at.gate], at.offset, at.axis, at.width)[:, channels] != 0
        found &= ~(value.flatten(2).any(2) if value.dim() > 2 else value).t().to(found.device)
    return found


def audible(
    stage: Stage, chunk: Chunk, layer: str, channel: Tensor, image: Tensor | None
) -> Tensor | None:  # fmt: skip
    """Which worlds have to be run, as indices; None: all, for too few are silent.

    Args:
        channel, image: as for `Exact.decide`.
    """
    channels, back = (channel, None) if image is None else channel.unique_consecutive(return_inverse=True)
    quiet = silent(stage, chunk, layer, channels)
    run = ~(quiet.flatten() if back is None else quiet[back, image])
    return run.nonzero().squeeze(1) if float(run.float().mean()) < 1 - WORTHWHILE else None
