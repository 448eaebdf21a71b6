"""What removing half of the channels gains: a network as it is, masked, and made smaller, timed in turns.

    python benchmarks/shrink.py [--repeats 30] [--threads N] [--batches 1 64]

VGG-11, ResNet-20 and GoogLeNet (pooled small stem) at 32 x 32, fp32. A mask alone gains nothing on dense hardware.
The time to find the channels that hang together and to take them out is beside Torch-Pruning's `BasePruner`.
"""

from __future__ import annotations

import argparse
import copy
import time

import torch
import torch_pruning as tp
from torch import nn

from prunescope.engine.latency import Latency, compare_latency, latency_ratio
from prunescope.models.shrink import Shrunk, shrink
from prunescope.models.zoo import build_model
from prunescope.pruning.granularity import granularity
from prunescope.pruning.scoring import criterion, cut
from prunescope.pruning.turn import whole_mask

SHAPE = (3, 32, 32)
NETWORKS = {
    "vgg11": "torchvision:vgg11",
    "resnet20": "resnet20",
    "googlenet": {"name": "torchvision:googlenet", "small_stem": "pool"},
}


def ours(model: nn.Module) -> tuple[nn.Module, Shrunk, float]:
    """(masked, shrunk, seconds of scoring, cutting and shrinking) with half of each layer's channels."""
    started = time.perf_counter()
    units = granularity("channel").fitted(model, SHAPE)
    mask = cut(model, whole_mask(model, units), criterion("magnitude"), keep=0.5, scope="layer", granularity=units)
    masked = copy.deepcopy(model)
    mask.apply_(masked)
    return masked, shrink(masked, SHAPE), time.perf_counter() - started


def theirs(model: nn.Module) -> tuple[nn.Module, float]:
    """(smaller network, seconds) by Torch-Pruning, half of each layer's channels."""
    model = copy.deepcopy(model)
    started = time.perf_counter()
    head = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    importance = tp.importance.GroupMagnitudeImportance(p=1)
    pruner = tp.pruner.BasePruner(
        model, torch.zeros(1, *SHAPE), importance=importance, pruning_ratio=0.5, ignored_layers=[head]
    )
    pruner.step()
    return model, time.perf_counter() - started


def milliseconds(times: Latency) -> str:
    """Median and interval."""
    found = times.median
    return f"{found.value * 1e3:8.2f} ms [{found.low * 1e3:.2f}, {found.high * 1e3:.2f}]"


def main() -> None:
    """Print sizes, latencies and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{arguments.threads} threads, medians of {arguments.repeats} turns with 95 % intervals")
    for name, config in NETWORKS.items():
        model = build_model(config, classes=10, channels=3, seed=0).eval()  # type: ignore[arg-type]
        masked, small, took = ours(model)
        other, took_other = theirs(model)
        counts = [sum(p.numel() for p in network.parameters()) for network in (model, small.network)]
        print(f"\n{name}: {counts[0]:,} parameters, {counts[1]:,} without {small.removed} of {small.units} channels")
        print(f"  score, cut and remove: {took:.2f} s, Torch-Pruning {took_other:.2f} s")
        networks = {"dense": model, "masked": masked, "shrunk": small.network, "torch-pruning": other}
        for size in arguments.batches:
            times = compare_latency(networks, SHAPE, batch_size=size, repeats=arguments.repeats)
            for key, found in times.items():
                gain = latency_ratio(times["dense"], found)
                speed = f"x {gain.value:.2f} [{gain.low:.2f}, {gain.high:.2f}]"
                print(f"  batch {size:3} {key:14} {milliseconds(found)}   {speed}")


if __name__ == "__main__":
    main()
