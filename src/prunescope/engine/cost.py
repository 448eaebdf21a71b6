"""What a network costs: parameters, operations, bytes and time, measured on the network itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from safetensors.torch import save
from torch import nn

from prunescope.core.mask import Mask
from prunescope.engine.flops import Flops, count_flops
from prunescope.engine.latency import Latency, compare_latency, noise
from prunescope.engine.memory import peak_memory
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.layers import prunable
from prunescope.models.packed import pack

#: One image, as in use; and a batch large enough to keep every unit of the hardware busy.
BATCH_SIZES = (1, 64)


@dataclass(frozen=True)
class Footprint:
    """What follows from the network alone: the same at every measurement, on every machine.

    Attributes:
        parameters: numbers in all parameters.   nonzero: of these, the ones that are not zero.
        flops: of one image (a multiplication and an addition are two); see `engine.flops`.
        file_bytes: of the state_dict as a safetensors file.
        packed_bytes: of the file that `models.packed` writes, with the mask that the network's own zeros spell.
        memory: {batch size: peak bytes of a forward pass}; see `engine.memory`.
    """

    parameters: int
    nonzero: int
    flops: Flops
    file_bytes: int
    packed_bytes: int
    memory: Mapping[int, int]


@dataclass(frozen=True)
class Cost:
    """The footprint of a network, and {batch size: latency}, which is of this machine at this moment."""

    footprint: Footprint
    latency: Mapping[int, Latency]


def cost(
    model: nn.Module,
    shape: Sequence[int],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    repeats: int = 30,
    channels_last: bool = False,
) -> Cost:
    """Count and time a network where it is. To compare networks, time them together: `compare_latency`.

    A network whose weights are merely set to zero takes as long as the dense one; its `flops.nonzero` is theory.

    Args:
        shape: (C, H, W) of one image.
        repeats: timed passes per batch size.

    >>> found = cost(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 2, 2), repeats=6)
    >>> found.footprint.parameters, found.footprint.flops.total, len(found.latency[64].seconds)
    (26, 48, 6)
    """

    def timed(size: int) -> Latency:
        found = compare_latency(
            {"it": model}, shape, batch_size=size, repeats=repeats, channels_last=channels_last
        )  # fmt: skip
        return found["it"]

    return Cost(footprint(model, shape, batch_sizes=batch_sizes), {size: timed(size) for size in batch_sizes})


def footprint(model: nn.Module, shape: Sequence[int], *, batch_sizes: Sequence[int] = BATCH_SIZES) -> Footprint:
    """Count a network. It is unchanged.

    Args:
        shape: (C, H, W) of one image.
        batch_sizes: for which to follow the memory.
    """
    parameters = list(model.parameters())
    device = parameters[0].device if parameters else torch.device("cpu")
    weights = Checkpoint.of(model).weights
    return Footprint(
        parameters=sum(parameter.numel() for parameter in parameters),
        nonzero=sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
        flops=count_flops(model, noise(shape, 1, device)),
        file_bytes=len(save(dict(weights))),
        packed_bytes=len(pack(weights, Mask.of_zeros(model, prunable(model)))),
        memory={size: peak_memory(model, noise(shape, size, device)) for size in batch_sizes},
    )
