"""How long a forward pass takes: medians with intervals, networks in turn."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Array
from prunescope.engine.untouched import untouched
from prunescope.metrics.medians import median_interval
from prunescope.metrics.statistics import Interval

#: Repetitions below which a median has no 95 % interval.
_FEWEST = 6


@dataclass(frozen=True, eq=False)
class Latency:
    """Times of one network.

    Attributes:
        seconds: (repeats,), of one batch each, in the order in which they were taken.
        batch_size: images in the batch.
        threads: of torch, within one operation (on the CPU).
        device: where it ran.
    """

    seconds: Array
    batch_size: int
    threads: int
    device: str

    @property
    def median(self) -> Interval:
        """Seconds a batch, with the 95 % interval of the median over repetitions."""
        return median_interval(self.seconds)


def compare_latency(
    models: Mapping[str, nn.Module],
    shape: Sequence[int],
    *,
    batch_size: int = 1,
    repeats: int = 30,
    warmup: int = 3,
    channels_last: bool = False,
) -> dict[str, Latency]:
    """Time several networks in turns, so that whatever else the machine does in the meantime hits all of them alike.

    Each runs where it is, in eval and inference mode, on noise; the garbage collector rests. The time is the wall
    clock's, until the device is done. The networks and the global random state are unchanged.

    Args:
        models: {name: network}.
        shape: (C, H, W) of one image.
        repeats: rounds that count, at least 6; `warmup` rounds before do not.
        channels_last: weights (of a copy) and images in that layout, in which many CPUs convolve faster.

    Raises:
        PrunescopeError: too few repetitions, or an empty batch.
    """
    if repeats < _FEWEST or warmup < 0 or batch_size < 1:
        raise PrunescopeError(
            f"latency needs at least {_FEWEST} repeats, no negative warm-up and a batch of at least one image; "
            f"got {repeats}, {warmup} and {batch_size}"
        )
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with ExitStack() as stack:
        ready = {name: stack.enter_context(_ready(model, channels_last)) for name, model in models.items()}
        images = {name: noise(shape, batch_size, _device(model), channels_last) for name, model in ready.items()}
        stack.enter_context(_no_collection())
        stack.enter_context(torch.inference_mode())
        for _ in range(warmup + repeats):
            for name, model in ready.items():
                seconds[name].append(_timed(model, images[name]))
    return {
        name: Latency(np.array(found[warmup:]), batch_size, torch.get_num_threads(), str(images[name].device))
        for name, found in seconds.items()
    }


def latency_ratio(slow: Latency, fast: Latency) -> Interval:
    """How many times as long `slow` takes as `fast`: median over the rounds of one comparison, paired, with interval.

    Raises:
        PrunescopeError: they are not of one comparison (different rounds or batch sizes).
    """
    if (len(slow.seconds), slow.batch_size) != (len(fast.seconds), fast.batch_size):
        raise PrunescopeError(
            f"only latencies of one comparison can be divided; these have {len(slow.seconds)} and {len(fast.seconds)} "
            f"rounds of {slow.batch_size} and {fast.batch_size} images"
        )
    return median_interval(slow.seconds / fast.seconds)


def noise(shape: Sequence[int], count: int, device: torch.device | str = "cpu", channels_last: bool = False) -> Tensor:
    """Images (count, C, H, W) of standard normal noise, always the same."""
    images = torch.randn(count, *shape, generator=torch_generator(0, "noise")).to(device)
    return images.to(memory_format=torch.channels_last) if channels_last else images


@contextmanager
def _ready(model: nn.Module, channels_last: bool) -> Iterator[nn.Module]:
    if channels_last:
        model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with untouched(model):
        yield model


@contextmanager
def _no_collection() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _device(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _timed(model: nn.Module, images: Tensor) -> float:
    _synchronize(images.device)
    started = time.perf_counter()
    model(images)
    _synchronize(images.device)
    return time.perf_counter() - started


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
