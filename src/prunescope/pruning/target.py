"""What a density is a share of: units, parameters, operations or time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.engine.latency import compare_latency
from prunescope.models.graph import channel_graph
from prunescope.models.shrink import shrink

#: `units`: weights, filters ..., whatever the granularity cuts. The others are looked for: the most units with which
#: the network has no more than that share of its parameters, of its multiplications, or of its time for one image.
Target = Literal["units", "parameters", "flops", "latency"]
TARGETS: tuple[Target, ...] = get_args(Target)

#: Share of a network that a mask leaves, in [0, 1].
Share = Callable[[Mask], float]

_HALVINGS = {"latency": 7}  # each is measured, to about one part in a hundred


def share_of(target: Target, model: nn.Module, shape: tuple[int, ...]) -> Share:
    """How large a masked network is beside the whole one.

    - `parameters`: all that are not masked, over all.
    - `flops`: multiplications by weights of convolutions, linear layers and attention's projections, for one image.
      Zeros count as saved; that is so once channels are taken out, and for single weights in theory only.
    - `latency`: median time of one image once the channels are taken out; measured, so not the same every time.

    Args:
        shape: (C, H, W) of one image.
    """
    if target == "parameters":
        total = sum(parameter.numel() for parameter in model.parameters())
        return lambda mask: (total - mask.total + mask.kept) / total
    if target == "flops":
        return _flops(model, shape)
    return lambda mask: _time(model, mask, shape)


def _flops(model: nn.Module, shape: tuple[int, ...]) -> Share:
    positions = channel_graph(model, shape).positions
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters() if name in positions}
    whole = sum(positions[name] * size for name, size in sizes.items())

    def share(mask: Mask) -> float:
        kept = {name: int(mask[name].sum()) if name in mask else size for name, size in sizes.items()}
        return sum(positions[name] * count for name, count in kept.items()) / whole

    return share


@torch.no_grad()
def _time(model: nn.Module, mask: Mask, shape: tuple[int, ...]) -> float:
    masked = copy.deepcopy(model)
    mask.apply_(masked)
    small = shrink(masked, shape).network
    times = compare_latency({"whole": model, "small": small}, shape)
    return times["small"].median.value / times["whole"].median.value


def reach(
    target: Target, wanted: float, keep: Callable[[float], Mask], share: Share, *, whole: float, units: int
) -> Mask:
    """The mask with the most units whose share is at most `wanted`, by bisection over densities.

    Args:
        keep: the mask at a density of units.
        whole: the density to come down from.
        units: about how many there are, which says how finely to look.

    Raises:
        PrunescopeError: even with the fewest units more is left.
    """
    low, high, found = 0.0, whole, None
    if share(before := keep(whole)) <= wanted:
        return before
    for _ in range(_HALVINGS.get(target, units.bit_length() + 2)):
        middle = (low + high) / 2
        try:
            mask = keep(middle)
        except PrunescopeError:  # lower than the granularity can go
            low = middle
            continue
        if share(mask) <= wanted:
            low, found = middle, mask
        else:
            high = middle
    if found is None:
        raise PrunescopeError(f"cutting all that may be cut still leaves more than {wanted:.1%} of the {target}")
    return found
