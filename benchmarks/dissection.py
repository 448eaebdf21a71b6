"""Network Dissection of all layers: ours beside the usual way, in a process of its own each.

python benchmarks/dissection.py [--model resnet20] [--images 512] [--draws 20] [--threads 1]

The usual way keeps the maps of every layer by hooks, sorts each unit's for its cut-off, then goes over units: enlarges
all maps of one unit, compares, and intersects with the mask of every concept. It has no baseline of chance: ours is
measured with one draw and with many, with maps kept and with a second pass. Images are of `shapes`, the network is not
trained. Peak memory is that of the process, less what it had before.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from prunescope.core.types import Array
from prunescope.data.shapes import Shapes
from prunescope.data.split import Split
from prunescope.engine.detectors import Question
from prunescope.engine.dissection import dissect, unit_places
from prunescope.models.zoo import build_model


def usual(model: nn.Module, split: Split, quantile: float = 0.005) -> Array:
    """IoU (U, K): hooks that keep all maps, then a loop over units."""
    assert split.segments is not None
    places, kept = unit_places(model, split), dict[str, list[Tensor]]()
    handles = [
        model.get_submodule(place).register_forward_hook(
            lambda _m, _i, out, layer=layer: kept.setdefault(layer, []).append(out.clone())
        )
        for layer, place in places.items()
    ]
    with torch.inference_mode():
        for _, x, _ in split.batches(64):
            model.eval()(x)
    for handle in handles:
        handle.remove()
    masks = split.segments[:]
    shown = masks.sum((0, 2, 3))
    rows = []
    for layer in places:
        maps = torch.cat(kept[layer])
        for unit in range(maps.shape[1]):
            own = maps[:, unit : unit + 1]
            values = own.flatten().sort(descending=True).values
            above = int(quantile * len(values))
            active = interpolate(own, masks.shape[2:], mode="bilinear")[:, 0] > (values[above - 1] + values[above]) / 2
            both = torch.stack([(active & masks[:, k]).sum() for k in range(masks.shape[1])])
            rows.append(both / (active.sum() + shown - both))
    return torch.stack(rows).numpy()


def ours(draws: int, memory: int) -> Callable[[nn.Module, Split], Array]:
    """The same by `dissect`, with chance."""
    return lambda model, split: dissect(model, split, question=Question(draws=draws, memory=memory)).iou


def run(name: str, given: argparse.Namespace, answer: Connection) -> None:
    """Seconds, megabytes and overlaps of one way."""
    torch.set_num_threads(given.threads)
    ways = {
        "usual": usual, "ours, 1 draw": ours(1, 1 << 40), f"ours, {given.draws} draws": ours(given.draws, 1 << 40),
        f"ours, {given.draws} draws, two passes": ours(given.draws, 0),
    }  # fmt: skip
    split = Shapes(train=64, val=16, test=given.images, size=given.size).load().test
    model = build_model(given.model, classes=4, channels=3, seed=0)
    assert split.segments is not None
    ways[name](model, split.subset(range(16)))  # kernels are chosen
    split.segments.pixels()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    found = ways[name](model, split)
    seconds = time.perf_counter() - start
    answer.send((seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, np.asarray(found)))


def main() -> None:
    """Print seconds, memory and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(f"{given.model}, {given.images} images of {given.size} pixels, {given.threads} thread(s)")
    names = [
        "usual", "ours, 1 draw", f"ours, {given.draws} draws", f"ours, {given.draws} draws, two passes",
    ]  # fmt: skip
    first = None
    for name in names:
        mine, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("spawn").Process(target=run, args=(name, given, theirs))
        child.start()
        seconds, memory, found = mine.recv()
        child.join()
        first = first or (seconds, memory, found)
        apart = np.nanmax(np.abs(found - first[2]))
        print(
            f"  {name:32} {seconds:7.2f} s   {memory:6.0f} MB   time {seconds / first[0]:5.2f}, "
            f"memory {memory / max(first[1], 1):5.2f} of the usual way's; overlaps differ by at most {apart:.0e}"
        )


if __name__ == "__main__":
    main()
