"""Top and bottom images of all units: one pass beside one pass for each layer with hooks, the usual way.

    python benchmarks/extremes.py [--images 2000] [--size 96] [--layers 0] [--k 200] [--threads 1]

A torchvision GoogLeNet with random weights on random images. Each way runs in a process of its own, so that its peak
memory is its own; what the process takes before it starts (PyTorch, network, images) is told apart. The usual way
keeps a layer's outputs, averages them, and sorts all images of every unit at the end. A pass for each of 122 layers
takes long: `--layers 6` runs six of them, evenly spread, and tells what all would take.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.seeds import torch_generator
from prunescope.data.split import Split
from prunescope.engine.allocator import tune_allocator
from prunescope.engine.extremes import extremes
from prunescope.engine.units import unit_layers
from prunescope.models.zoo import build_model


def network() -> nn.Module:
    """GoogLeNet with random weights, without its auxiliary heads."""
    return build_model("torchvision:googlenet", classes=1000, channels=3, seed=0).eval()


def images(count: int, size: int) -> Split:
    """Random pixels: speed does not depend on what is seen."""
    pixels = torch.randint(0, 256, (count, 3, size, size), generator=torch_generator(0, "bench"), dtype=torch.uint8)
    return Split(pixels, torch.zeros(count), np.arange(count).astype(str), ("one",))


def one_pass(model: nn.Module, split: Split, given: argparse.Namespace) -> tuple[int, int, list[Tensor]]:
    """(layers, units, extremes) by one pass for all layers."""
    names = [f"{name}:mean" for name in unit_layers(model)]
    found = extremes(model, split, names, k=given.k, pool="mean", seed=0, batch_size=given.batch_size)
    return len(names), sum(len(item.dead) for item in found.values()), []


def pass_per_layer(model: nn.Module, split: Split, given: argparse.Namespace) -> tuple[int, int, list[Tensor]]:
    """The same by a hook on one layer at a time."""
    names, units, kept = list(unit_layers(model)), 0, []
    if given.layers:
        names = [names[i] for i in np.linspace(0, len(names) - 1, given.layers).round().astype(int)]
    for name in names:
        outputs: list[Tensor] = []
        handle = model.get_submodule(name).register_forward_hook(lambda _m, _i, out, into=outputs: into.append(out))
        with torch.inference_mode():
            for _, x, _ in split.batches(given.batch_size):
                model(x)
        handle.remove()
        means = torch.cat([out.flatten(2).mean(2) if out.ndim == 4 else out for out in outputs])
        order = means.sort(dim=0, descending=True).indices
        kept += [order[: given.k].clone(), order[-given.k :].clone()]
        units += means.shape[1]
    return len(names), units, kept


WAYS = {"one pass": one_pass, "a pass per layer": pass_per_layer}


def measured(way: str, given: argparse.Namespace) -> None:
    """Print time and memory of one way."""
    tune_allocator()
    torch.set_num_threads(given.threads)
    model, split = network(), images(given.images, given.size)
    with torch.inference_mode():  # what is made at first use is not counted
        model(next(split.batches(8))[1])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter()
    layers, units, _ = WAYS[way](model, split, given)
    seconds, peak = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    every = len(unit_layers(model))
    whole = f", all {every} layers: {seconds * every / layers:.0f} s" if layers < every else ""
    print(
        f"  {way:17} {layers:4} layers {units:6} units {seconds:8.1f} s   {peak:6.0f} MB at the most, "
        f"{peak - before:5.0f} MB more than before{whole}",
        flush=True,
    )


def main() -> None:
    """Print a line for each way, and the forward pass alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--layers", type=int, default=6, help="passes of the usual way; 0: all")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    print(
        f"GoogLeNet, {given.images} images of {given.size} pixels, batches of {given.batch_size}, top and bottom "
        f"{given.k}, {given.threads} thread(s)"
    )
    for way in WAYS:
        child = multiprocessing.get_context("spawn").Process(target=measured, args=(way, given))
        child.start()
        child.join()


if __name__ == "__main__":
    main()
