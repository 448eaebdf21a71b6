"""Masks that should be worse than a ticket's."""

from __future__ import annotations

import torch

from prunescope.core.mask import Mask
from prunescope.core.seeds import torch_generator


def shuffled(mask: Mask, seed: int) -> Mask:
    """A mask with the same count in every tensor, at random places: what a ticket's structure is worth."""
    generator = torch_generator(seed, "shuffled mask")
    return Mask(
        {
            name: kept.flatten()[torch.randperm(kept.numel(), generator=generator)].view_as(kept)
            for name, kept in mask.items()
        }
    )
