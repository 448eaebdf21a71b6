"""What a checkpoint costs: parameters, operations, bytes and, if asked for, time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.engine.cost import BATCH_SIZES, Footprint, footprint
from prunescope.engine.latency import Latency, compare_latency, latency_ratio
from prunescope.engine.sweep import Needs, Pass
from prunescope.metrics.statistics import Interval
from prunescope.models.shrink import shrink
from prunescope.probes.base import Probe, Subject, probes

#: Before the metrics of the network without its removed channels.
SHRUNK = "shrunk."


@probes.register("cost")
@dataclass(frozen=True)
class Cost(Probe):
    """Parameters, FLOPs, bytes on disk and peak memory; with `latency` also the time of a forward pass.

    Metrics (see `engine.cost.Footprint`): `parameters`, `nonzero`, `flops` and `flops_nonzero` of one image (a
    multiplication and an addition are two), `file_bytes`, `packed_bytes`, and `memory.B` in bytes for each batch size
    B; of the network as it is, with zeros where weights are pruned. Where whole channels can be removed the same of the
    network without them, as `shrunk.*`; the record's `removal` says `channels`, `none` or why it is not known. No image
    is read.

    Times are of the machine and the moment: a checkpoint timed twice gives two records. As a study promises the same
    bits when it is run again, they are off unless asked for; then leave it at one worker, or cells slow each other
    down. They are `latency.B` in milliseconds a batch, with `.low` and `.high` (95 % interval of the median), images
    and weights in channels-last layout. The two networks are timed in turns: `speedup.B`, dense shape over shrunk,
    does not depend on how busy the machine was.

    Attributes:
        batch_sizes: for memory and latency.
        latency: whether to time.
        repeats: timed passes per network and batch size.
    """

    batch_sizes: tuple[int, ...] = BATCH_SIZES
    latency: bool = False
    repeats: int = 30

    summary: ClassVar[str] = "parameters, FLOPs, bytes on disk, peak memory; latency if asked for"

    def __post_init__(self) -> None:
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise PrunescopeError(f"cost: batch_sizes must be one or more numbers from 1, got {self.batch_sizes}")
        if self.repeats < 6:
            raise PrunescopeError(f"cost: repeats must be at least 6 for a 95 % interval, got {self.repeats}")

    def start(self, subject: Subject) -> _Gatherer:
        return _Gatherer(self, subject.model, subject.data.test.shape)


def shrunk(model: nn.Module, shape: Sequence[int]) -> nn.Module | None:
    """The network without the channels that nothing reads, to be measured beside it; None when it stays whole.

    The one place where the probe makes a network smaller.

    Raises:
        PrunescopeError: its channels cannot be followed.
    """
    found = shrink(model, tuple(shape))
    return found.network if found.removed else None


@dataclass
class _Gatherer:
    probe: Cost
    model: nn.Module
    shape: Sequence[int]
    needs: ClassVar[Needs] = Needs(splits=())

    def update(self, batch: Pass) -> None:
        """Never called: no split is walked."""

    def finish(self) -> Record:
        info: dict[str, Any] = {"flops": "a multiplication and an addition are two", "removal": "none"}
        networks = {"": self.model}
        try:
            if (small := shrunk(self.model, self.shape)) is not None:
                networks[SHRUNK], info["removal"] = small, "channels"
        except PrunescopeError as error:
            info["removal"] = f"not known: {error}"
        metrics: dict[str, float] = {}
        for prefix, network in networks.items():
            found = footprint(network, self.shape, batch_sizes=self.probe.batch_sizes)
            metrics |= {f"{prefix}{name}": value for name, value in _numbers(found)}
        if self.probe.latency:
            info["timing"] = {"repeats": self.probe.repeats, "layout": "channels last"}
            for size in self.probe.batch_sizes:
                times = compare_latency(
                    networks, self.shape, batch_size=size, repeats=self.probe.repeats, channels_last=True
                )  # fmt: skip
                metrics |= dict(_times(times, size))
                info["timing"] |= {"threads": times[""].threads, "device": times[""].device}
        return Record("cost", metrics, info=info)


def _numbers(found: Footprint) -> Iterator[tuple[str, float]]:
    yield "parameters", found.parameters
    yield "nonzero", found.nonzero
    yield "flops", found.flops.total
    yield "flops_nonzero", found.flops.nonzero
    yield "file_bytes", found.file_bytes
    yield "packed_bytes", found.packed_bytes
    for size, value in found.memory.items():
        yield f"memory.{size}", value


def _times(times: Mapping[str, Latency], size: int) -> Iterator[tuple[str, float]]:
    for prefix, found in times.items():
        yield from _bounds(f"{prefix}latency.{size}", found.median, 1e3)
    if SHRUNK in times:
        yield from _bounds(f"speedup.{size}", latency_ratio(times[""], times[SHRUNK]), 1.0)


def _bounds(name: str, found: Interval, scale: float) -> Iterator[tuple[str, float]]:
    yield name, scale * found.value
    yield f"{name}.low", scale * found.low
    yield f"{name}.high", scale * found.high
