"""What networks of one origin cost, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn

from prunescope.engine.cost import BATCH_SIZES, footprint
from prunescope.engine.latency import compare_latency, latency_ratio
from prunescope.metrics.statistics import Interval


def costs(
    networks: Mapping[str, nn.Module],
    shape: Sequence[int],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    repeats: int = 30,
) -> dict[str, Any]:
    """Count networks, and time them in turns; plain data.

    Args:
        networks: {name: network}; the first is the one that the others are compared with.
        shape: (C, H, W) of one image.
        repeats: timed passes per batch size; 0: no timing.

    Returns:
        `footprints`: {name: `engine.cost.Footprint`}; `latency`: {batch size: {name: seconds a batch, as `Interval`}};
        `speedup`: {batch size: {name: times as fast as the first}}; `repeats`, `threads`, `device`.
    """
    found: dict[str, Any] = {
        "footprints": {name: asdict(footprint(net, shape, batch_sizes=batch_sizes)) for name, net in networks.items()},
        "latency": {}, "speedup": {}, "repeats": repeats,
    }  # fmt: skip
    first, *others = networks
    for size in batch_sizes if repeats else ():
        times = compare_latency(networks, shape, batch_size=size, repeats=repeats, channels_last=True)
        found["latency"][size] = {name: asdict(times[name].median) for name in networks}
        found["speedup"][size] = {name: asdict(latency_ratio(times[first], times[name])) for name in others}
        found |= {"threads": times[first].threads, "device": times[first].device}
    return found


def rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """(quantity, its unit, one value or `Interval` per network) of what `costs` found, for a table."""
    prints = list(found["footprints"].values())
    for key, title in (("parameters", "parameters"), ("nonzero", "of these not zero")):
        yield title, "count", [one[key] for one in prints]
    yield "FLOPs an image", "count", [one["flops"]["total"] for one in prints]
    for key, title in (("file_bytes", "file"), ("packed_bytes", "file, packed")):
        yield title, "bytes", [one[key] for one in prints]
    for size in prints[0]["memory"]:
        yield f"peak memory, batch {size}", "bytes", [one["memory"][size] for one in prints]
    for size, times in found["latency"].items():
        yield f"latency, batch {size}", "seconds", [Interval(**one) for one in times.values()]
        yield (
            f"times as fast, batch {size}",
            "ratio",
            [None, *(Interval(**one) for one in found["speedup"][size].values())],
        )
