"""Training images per second: `fit` beside a plain PyTorch loop on the same network, batches and precision.

    python benchmarks/train.py [--model small_cnn] [--images 4096] [--batch-size 128] [--repeats 5] [--threads N]

Both see the same batches from memory, augmented alike; repeats are interleaved. Target: an overhead of at most 5 %.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

from prunescope.data.augment import Augmentation
from prunescope.data.split import Split
from prunescope.data.training_batches import steps_per_epoch, training_batches
from prunescope.engine.allocator import tune_allocator
from prunescope.engine.optimisation import make_optimizer
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.models.zoo import build_model


def random_split(count: int) -> Split:
    """Noise of CIFAR's shape."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(10, (count,), generator=generator)
    return Split(images, labels, [str(i) for i in range(count)], tuple("abcdefghij"))  # type: ignore[arg-type]


def plain(model: nn.Module, split: Split, training: Training) -> None:
    """The loop that everybody writes."""
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = make_optimizer(model, training)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training.total_steps(split))
    for epoch in range(int(training.epochs)):
        for x, y in training_batches(
            split, batch_size=training.batch_size, seed=0, epoch=epoch, augment=training.augment
        ):
            with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bf16"):
                loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()


def main() -> None:
    """Print images per second of both and the overhead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small_cnn")
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    tune_allocator()

    split = random_split(arguments.images)
    training = Training(
        epochs=1, batch_size=arguments.batch_size, lr=0.01, precision=arguments.precision,
        augment=Augmentation(crop_padding=4, flip=True),
    )  # fmt: skip
    count = steps_per_epoch(split, training.batch_size) * training.batch_size

    def ours(model: nn.Module) -> None:
        fit(model, split, training, seed=0, device="cpu")

    rates: dict[str, list[float]] = {"prunescope": [], "plain loop": []}
    for repeat in range(arguments.repeats + 1):
        for name, train in (("prunescope", ours), ("plain loop", lambda model: plain(model, split, training))):
            model = build_model(arguments.model, classes=10, channels=3, seed=0)
            started = time.perf_counter()
            train(model)
            if repeat:  # the first round warms up
                rates[name].append(count / (time.perf_counter() - started))
    print(
        f"{arguments.model}, batch {arguments.batch_size}, {arguments.threads} threads, precision {arguments.precision}"
    )
    for name, found in rates.items():
        print(f"{name:>12}: {statistics.median(found):8.0f} images/s  ({min(found):.0f} to {max(found):.0f})")
    ratio = statistics.median(p / o for o, p in zip(rates["prunescope"], rates["plain loop"], strict=True))
    print(f"overhead: {100 * (ratio - 1):+.1f} % (median of {arguments.repeats} paired repeats)")


if __name__ == "__main__":
    main()
