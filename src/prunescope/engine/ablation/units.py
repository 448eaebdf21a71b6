"""Which units are meant: names of layers, or channels of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from prunescope.core.errors import PrunescopeError, choices

#: {layer: channels}.
Units: TypeAlias = Mapping[str, Sequence[int]]


def units_of(
    channels: Mapping[str, int], layers: Sequence[str] | Units | None, *, once: bool = True
) -> dict[str, list[int]]:
    """{layer: channels in their order} of what was asked for: names of layers, {layer: channels}, or None: all.

    Args:
        channels: {layer: how many it has}.
        once: refuse a channel that is named twice.

    Raises:
        PrunescopeError: an unknown layer or channel, or one named twice.
    """
    found = {}
    for name in channels if layers is None else layers:
        if name not in channels:
            raise choices("layer with units", name, channels)
        given = layers[name] if isinstance(layers, Mapping) else range(channels[name])
        found[name] = sorted(int(channel) for channel in given)
        twice = once and len(set(found[name])) < len(found[name])
        if twice or not set(found[name]) <= set(range(channels[name])):
            each = ", each once;" if once else ","
            raise PrunescopeError(f"{name} has channels 0 to {channels[name] - 1}{each} got {found[name]}")
    return found
