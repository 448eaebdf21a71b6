"""Shuffled, augmented batches for training, any of which can be reached without the ones before it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.data.augment import Augmentation
from prunescope.data.split import Split


def steps_per_epoch(split: Split, batch_size: int) -> int:
    """Full batches in the split, and 1 when it is smaller than a batch."""
    if batch_size < 1:
        raise PrunescopeError(f"batch_size must be at least 1, got {batch_size}")
    if not len(split):
        raise PrunescopeError("a split without images cannot be trained on")
    return max(1, len(split) // batch_size)


def training_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    augment: Augmentation | None = None,
    skip: int = 0,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of (normalised float32 images, labels), from batch number `skip` on.

    Order and augmentation depend on (seed, epoch, batch number) only, so a run that goes on in the middle of an epoch
    sees the same batches as one that was never stopped. The last, short batch is left out (batch norm suffers from
    batches of one or two), unless it is the only one.
    """
    order = torch.randperm(len(split), generator=torch_generator(seed, "order", epoch))
    for number in range(skip, steps_per_epoch(split, batch_size)):
        index = order[number * batch_size : (number + 1) * batch_size]
        images = split.images[index].to(device, non_blocking=True)
        if augment is not None:
            images = augment(images, torch_generator(seed, "augment", epoch, number))
        images = images.contiguous(memory_format=torch.channels_last)  # cheaper here, on bytes, than on floats
        yield split.normalisation(images), split.labels[index].to(device, non_blocking=True)
