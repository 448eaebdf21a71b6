"""Half of a layer's filters removed greedily: ours beside the same evaluations by a loop of hooks.

    python benchmarks/car_greedy.py [--work resnet20] [--layers stage3.0.conv1] [--images 500] [--repeats 5]
                                    [--weights FILE --data cifar10:PATH]

The loop is that of `car.py`. Every removal asks for all filters that are left: n + (n - 1) + ... networks are run; the
loop is timed on a sample of filters and multiplied. Ours runs everything, the accuracy after every removal included.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import torch
from car import EFFORTS, Loop, images, network, options, seconds, told
from torch import nn

from prunescope.data.split import Split
from prunescope.engine.ablation.ablate import Ablator
from prunescope.pruning.greedy import Until, greedy


def remove_half(model: nn.Module, split: Split, layer: str, given: argparse.Namespace) -> None:
    """Print how long greedy removal of half of a layer takes beside the same evaluations by the loop."""
    x = torch.cat([batch for _, batch, _ in split.batches(64)])
    loop = Loop(model, x, (layer, 0))
    count = Ablator(model, split).channels[layer]
    evaluations = sum(count - step for step in range(count // 2))
    sample = [(layer, c) for c in range(min(given.sample, count))]
    spent: dict[str, list[float]] = {}
    orders = {}
    for repeat in range(given.repeats):
        each = seconds(lambda: loop.filters(sample, *loop.settings["best"])) / len(sample)
        spent.setdefault("loop", []).append(each * evaluations)
        for effort in given.efforts:

            def run(effort: str = effort) -> None:
                until = Until(steps=count // 2)
                orders[effort] = greedy(model, split, layers=[layer], until=until, effort=EFFORTS[effort]).order

            spent.setdefault(effort, []).append(seconds(run))
        seen = ", ".join(f"{key} {times[-1]:.1f} s" for key, times in spent.items())
        print(f"{layer}, repeat {repeat + 1} of {given.repeats}: {seen}", file=sys.stderr, flush=True)
    print(f"\ngreedy, half of the {count} filters of {layer}: {evaluations} evaluations of {len(x)} images")
    print(f"  loop           {told(spent['loop'])}")
    for effort in given.efforts:
        same = sum(a == b for a, b in zip(orders[effort], orders[given.efforts[0]], strict=True))
        ratio = statistics.median(spent["loop"]) / statistics.median(spent[effort])
        print(
            f"  {effort:14} {told(spent[effort])}   x {ratio:.1f}   {same} of {count // 2} removals the same",
            flush=True,
        )


def main() -> None:
    """Print a block for each layer."""
    given = options(__doc__, work=["resnet20"], layers=["stage3.0.conv1"], images=500)
    for name in given.work:
        split = images(name, given)
        model = network(name, len(split.classes), given.weights)
        for layer in given.layers:
            remove_half(model, split, layer, given)


if __name__ == "__main__":
    main()
