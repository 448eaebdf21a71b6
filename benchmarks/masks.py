"""What masks cost in training: `fit` with a mask beside `fit` without, on the same network, batches and precision.

    python benchmarks/masks.py [--models small_cnn resnet20] [--images 2048] [--repeats 7] [--threads N]

Repeats are in turns, and the overhead is of pairs. Target: at most 3 % per step.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from train import random_split

from prunescope.core.mask import Mask
from prunescope.data.split import Split
from prunescope.engine.allocator import tune_allocator
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.metrics.medians import median_interval
from prunescope.models.layers import prunable
from prunescope.models.zoo import build_model


def seconds(model: str, split: Split, training: Training, *, masked: bool) -> float:
    """One epoch."""
    network = build_model(model, classes=10, channels=3, seed=0)
    generator = torch.Generator().manual_seed(0)
    shapes = {name: dict(network.named_parameters())[name].shape for name in prunable(network)}
    mask = Mask({name: torch.rand(shape, generator=generator) < 0.2 for name, shape in shapes.items()})
    started = time.perf_counter()
    fit(network, split, training, seed=0, mask=mask if masked else None, device="cpu")
    return time.perf_counter() - started


def main() -> None:
    """Print milliseconds a step of both, and the overhead with its interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["small_cnn", "resnet20"])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tune_allocator()
    split = random_split(arguments.images)
    training = Training(epochs=1, batch_size=arguments.batch_size, lr=0.01)
    steps = training.total_steps(split)
    print(f"{arguments.threads} threads, batches of {arguments.batch_size}, medians of {arguments.repeats} turns")
    for model in arguments.models:
        seconds(model, split, training, masked=True)  # warms up
        turns = [(seconds(model, split, training, masked=True), seconds(model, split, training, masked=False))
                 for _ in range(arguments.repeats)]  # fmt: skip
        masked, plain = np.array(turns).T
        over = median_interval(masked / plain)
        print(
            f"{model:12} masked {np.median(masked) / steps * 1e3:7.2f} ms/step   plain "
            f"{np.median(plain) / steps * 1e3:7.2f} ms/step   overhead {over.value - 1:+.1%} "
            f"[{over.low - 1:+.1%}, {over.high - 1:+.1%}]"
        )


if __name__ == "__main__":
    main()
