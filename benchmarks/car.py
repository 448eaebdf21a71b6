"""Every filter taken out once: ours beside a loop of hooks, and beside Captum's LayerFeatureAblation.

    python benchmarks/car.py [--work resnet20 vgg11 alexnet googlenet] [--images N] [--repeats 5] [--threads N]
    python benchmarks/car.py --work resnet20 --weights FILE --data cifar10:PATH    # a trained network on real images

The loop zeroes the channel in a forward hook and runs the whole network, at the batch size and memory format that are
best for it, both tried. A filter costs the loop the same wherever it lies, so the loop is timed on a sample of filters
and multiplied; so is Captum, on 50 images and a few layers. Ours runs everything. `limit` is the arithmetic that plain
replays save: multiplications of all full forward passes over those of the replays. Random weights without `--weights`:
then nothing is sure by first derivatives, and `screen` says little.

All times are of one process with the allocator told to keep memory (`engine.allocator`), peers included.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunescope.core.compat import torchvision_module
from prunescope.data.load import load_data
from prunescope.data.split import Split
from prunescope.data.subsets import stratified
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Ablation, Effort
from prunescope.engine.ablation.worlds import Worlds
from prunescope.engine.allocator import tune_allocator
from prunescope.models.layers import CONVOLUTIONS
from prunescope.models.weights import load_weights, read_weights
from prunescope.models.zoo import build_model
from prunescope.ticket.job import read_spec

#: name: (images, side, classes)
WORK = {"resnet20": (1000, 32, 10), "vgg11": (1000, 32, 10), "alexnet": (64, 224, 1000), "googlenet": (64, 224, 1000)}


def network(name: str, classes: int) -> nn.Module:
    torch.manual_seed(0)
    if name in ("resnet20", "vgg11"):
        return build_model(name, classes=classes, channels=3, seed=0).eval()
    more = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
    return getattr(torchvision_module().models, name)(num_classes=classes, **more).eval()


def images(count: int, side: int, classes: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return Split(pixels, labels, np.arange(count).astype(str), tuple(map(str, range(classes))))


def seconds(run: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


class Loop:
    """The usual way: a hook that zeroes one channel of a layer's output, and the whole network."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model, self.x = model, x

    @torch.inference_mode()
    def filters(self, units: list[tuple[str, int]], batch_size: int, last: bool) -> None:
        layout = torch.channels_last if last else torch.contiguous_format
        model, x = self.model.to(memory_format=layout), self.x.contiguous(memory_format=layout)
        for name, channel in units:
            handle = model.get_submodule(name).register_forward_hook(lambda _m, _i, out, c=channel: zeroed(out, c))
            for batch in x.split(batch_size):
                model(batch).argmax(1)
            handle.remove()

    def best(self, units: list[tuple[str, int]], repeats: int) -> tuple[float, int, bool]:
        """(seconds per filter, batch size, channels last) of the best setting."""
        tried = {(b, last): seconds(lambda b=b, last=last: self.filters(units[:1], b, last), 1)
                 for b in (8, 16, 32, 50, 100, 250) if b <= len(self.x) for last in (False, True)}  # fmt: skip
        size, last = min(tried, key=tried.__getitem__)
        return seconds(lambda: self.filters(units, size, last), repeats) / len(units), size, last


def zeroed(out: Tensor, channel: int) -> Tensor:
    out[:, channel] = 0
    return out


def captum_per_filter(model: nn.Module, x: Tensor, layers: list[str], counts: dict[str, int]) -> float:
    """Seconds that Captum takes per filter over all images, from one batch of images and a few layers."""
    from captum.attr import LayerFeatureAblation

    some, filters = x[: min(len(x), 50)], 0
    started = time.perf_counter()
    with torch.inference_mode():
        for name in layers:
            shape: list[int] = []
            handle = model.get_submodule(name).register_forward_hook(lambda _m, _i, out, s=shape: s.extend(out.shape))
            model(some[:1])
            handle.remove()
            mask = torch.arange(shape[1]).view(1, -1, *[1] * (len(shape) - 2)).expand(1, *shape[1:])
            LayerFeatureAblation(model, model.get_submodule(name)).attribute(some, target=0, layer_mask=mask)
            filters += counts[name]
    return (time.perf_counter() - started) / filters * len(x) / len(some)


def limit(ablator: Ablator, x: Tensor, layers: list[str]) -> float:
    """Multiplications of full passes over those of replays, all filters of the layers."""
    stage = ablator.exact.stage
    with torch.inference_mode():
        with FlopCounterMode(display=False) as whole:
            base = stage.run(x[:1])
        replays = 0
        for layer in layers:
            with FlopCounterMode(display=False) as part:
                stage.replay(layer, Worlds.grid(torch.zeros(1, dtype=torch.int64), 1), base)
            replays += part.get_total_flops() * stage.channels[layer]
    units = sum(stage.channels[layer] for layer in layers)
    return units * whole.get_total_flops() / max(replays, 1)


def measure(name: str, model: nn.Module, split: Split, given: argparse.Namespace) -> None:
    """Print a block."""
    ablator = Ablator(model, split)
    counts = dict(ablator.channels)
    layers = [n for n in counts if isinstance(model.get_submodule(n), CONVOLUTIONS) and "shortcut" not in n]
    layers = given.layers or layers
    units = [(n, c) for n in layers for c in range(counts[n])]
    x = torch.cat([batch for _, batch, _ in split.batches(64)])
    sample = [units[i] for i in torch.randperm(len(units), generator=torch.Generator().manual_seed(1))[: given.sample]]
    each, size, last = Loop(model, x).best(sample, given.repeats)
    model.to(memory_format=torch.contiguous_format)
    some = layers[:: max(1, len(layers) // 3)]
    captum = float("nan") if given.no_captum else captum_per_filter(model, x, some, counts) * len(units)
    loop = each * len(units)
    print(f"\n{name}: {len(units)} filters, {len(x)} images; limit of arithmetic x {limit(ablator, x, layers):.1f}")
    print(f"  loop of hooks {loop:.1f} s (batches of {size}, channels last: {last}); Captum {captum:.1f} s")
    reference = None
    for effort in (Effort(), Effort(screen=True), Effort("bf16"), Effort("bf16", screen=True)):
        answers: list[Ablation] = []
        ours = seconds(lambda e=effort, a=answers: a.append(Ablator(model, split, effort=e).run(layers)), given.repeats)
        found = answers[-1]
        reference = found.predicted if reference is None else reference
        print(f"  {effort.precision:>4} {'screen' if effort.screen else '':6} {ours:8.1f} s", end="   ")
        print(f"x {loop / ours:5.1f} of the loop   x {captum / ours:5.1f} of Captum", end="   ")
        print(f"{int((found.predicted != reference).sum())} differ, {found.redone} full passes", end=", ")
        print(f"{found.screened} again, {found.passed / found.worlds:.0%} left out", end=", ")
        print(f"{found.wrong} of {found.audited} wrong")
    print(f"  peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def main() -> None:
    """Print a block for each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--layers", nargs="+", help="only these: features.10 of AlexNet")
    parser.add_argument("--images", type=int, default=0, help="0: as many as the table says")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sample", type=int, default=8, help="filters that the loop is timed on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--no-captum", action="store_true")
    given = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(given.threads)
    for name in given.work:
        count, side, classes = WORK[name]
        count = given.images or count
        if given.data:
            test = load_data(read_spec(given.data, "data")).test
            split = test.subset(stratified(test.labels, count, seed=0))
        else:
            split = images(count, side, classes)
        model = network(name, len(split.classes))
        if given.weights:
            load_weights(model, read_weights(given.weights), where=str(given.weights))
        measure(name, model, split, given)


if __name__ == "__main__":
    main()
