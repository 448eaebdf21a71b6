"""Peak memory of an ablation: a process of its own for each effort and number of images, beside a plain forward pass.

    python benchmarks/car_memory.py [--work resnet20] [--efforts 32 bf16]

Four filters of every layer are taken out, with 400 MB for values. What counts is that twice the images take no more.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource

import torch
from car import WORK, images, network, options

from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.allocator import tune_allocator


def peak(name: str, effort: str, count: int, threads: int) -> None:
    """Print the peak memory of a process that does nothing else."""
    tune_allocator()
    torch.set_num_threads(threads)
    given = argparse.Namespace(images=count, data=None)
    model, split = network(name, WORK[name][2], None), images(name, given)
    if effort == "plain forward":
        with torch.inference_mode():
            for _, x, _ in split.batches(50):
                model(x)
    else:
        precision, _, screen = effort.partition("+")
        asked = Effort(precision, screen=bool(screen), memory=400 * 2**20)  # type: ignore[arg-type]
        ablator = Ablator(model, split, effort=asked)
        ablator.run({layer: range(min(4, channels)) for layer, channels in ablator.channels.items()})
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {effort:14} {count:5} images   {used:6.0f} MB", flush=True)


def main() -> None:
    """Print a block for each network."""
    given = options(__doc__, work=["resnet20"])
    for name in given.work:
        print(f"\n{name}: peak memory")
        for effort in ("plain forward", *given.efforts):
            for count in (500, 1000):
                child = multiprocessing.get_context("spawn").Process(
                    target=peak, args=(name, effort, count, given.threads)
                )
                child.start()
                child.join()


if __name__ == "__main__":
    main()
