"""Every filter taken out once: ours beside a loop of hooks, and beside Captum's LayerFeatureAblation.

    python benchmarks/car.py [--work resnet20 vgg11 alexnet googlenet] [--images N] [--repeats 5] [--threads N]
    python benchmarks/car.py --work resnet20 --weights FILE --data cifar10:PATH    # a trained network on real images

The loop zeroes the channel in a forward hook and runs the whole network, at the batch size that is best for it, in
torch's default memory format (`default`) and in the better of that and channels last (`best`). A filter costs the loop
the same wherever it lies, so in every repeat the loop is timed on a sample of filters and multiplied; so is Captum, on
50 images and a few layers. Ours runs everything. Ratios are of medians over the repeats. `limit` is what plain replays
save in arithmetic: multiplications of all full forward passes over those of the replays. Random weights without
`--weights`: then little is sure by first derivatives, and `screen` says little. `--every K` takes one filter in K of
each layer, for all alike; bf16 still calibrates on all of a layer, so that it gains little then. Images are random
without `--data`. How each repeat went is told on stderr.

All times are of one process with the allocator told to keep memory (`engine.allocator`), peers included.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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
EFFORTS = {
    "32": Effort(), "32+screen": Effort(screen=True), "bf16": Effort("bf16"),
    "bf16+screen": Effort("bf16", screen=True),
}  # fmt: skip


def network(name: str, classes: int, weights: Path | None) -> nn.Module:
    torch.manual_seed(0)
    if name in ("resnet20", "vgg11"):
        model = build_model(name, classes=classes, channels=3, seed=0).eval()
    else:
        more = {"aux_logits": True, "init_weights": False} if name == "googlenet" else {}
        model = getattr(torchvision_module().models, name)(num_classes=classes, **more).eval()
    if weights:
        load_weights(model, read_weights(weights), where=str(weights))
    return model


def images(name: str, given: argparse.Namespace) -> Split:
    count, side, classes = WORK[name]
    count = given.images or count
    if given.data:
        test = load_data(read_spec(given.data, "data")).test
        return test.subset(stratified(test.labels, count, seed=0))
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, classes, (count,), generator=generator)
    return Split(pixels, labels, np.arange(count).astype(str), tuple(map(str, range(classes))))


def seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


class Loop:
    """The usual way: a hook that zeroes one channel of a layer's output, and the whole network.

    Attributes:
        settings: {name: (batch size, channels last)}.
    """

    def __init__(self, model: nn.Module, x: Tensor, unit: tuple[str, int]) -> None:
        self.model, self.x = copy.deepcopy(model), x
        tried = {(size, last): seconds(lambda size=size, last=last: self.filters([unit], size, last))
                 for last in (False, True) for size in (8, 16, 32, 50, 100, 250) if size <= len(x)}  # fmt: skip
        plain = {key: spent for key, spent in tried.items() if not key[1]}
        self.settings = {"default": min(plain, key=plain.__getitem__), "best": min(tried, key=tried.__getitem__)}

    @torch.inference_mode()
    def filters(self, units: list[tuple[str, int]], size: int, last: bool) -> None:
        layout = torch.channels_last if last else torch.contiguous_format
        model, x = self.model.to(memory_format=layout), self.x.contiguous(memory_format=layout)
        for name, channel in units:
            handle = model.get_submodule(name).register_forward_hook(lambda _m, _i, out, c=channel: zeroed(out, c))
            for batch in x.split(size):
                model(batch).argmax(1)
            handle.remove()


def zeroed(out: Tensor, channel: int) -> Tensor:
    out[:, channel] = 0
    return out


@torch.inference_mode()
def captum_filters(model: nn.Module, x: Tensor, layers: Mapping[str, int]) -> None:
    """What Captum does for all filters of these layers {name: channels}, one batch of images."""
    from captum.attr import LayerFeatureAblation

    for name in layers:
        shape: list[int] = []
        handle = model.get_submodule(name).register_forward_hook(lambda _m, _i, out, s=shape: s.extend(out.shape))
        model(x[:1])
        handle.remove()
        mask = torch.arange(shape[1]).view(1, -1, *[1] * (len(shape) - 2)).expand(1, *shape[1:])
        LayerFeatureAblation(model, model.get_submodule(name)).attribute(x, target=0, layer_mask=mask)


def limit(ablator: Ablator, x: Tensor, chosen: Mapping[str, list[int]]) -> float:
    """Multiplications of full passes over those of replays, all filters of the layers."""
    stage = ablator.exact.stage
    with torch.inference_mode():
        with FlopCounterMode(display=False) as whole:
            base = stage.run(x[:1])
        replays = 0
        for layer, channels in chosen.items():
            with FlopCounterMode(display=False) as part:
                stage.replay(layer, Worlds.grid(torch.zeros(1, dtype=torch.int64), 1), base)
            replays += part.get_total_flops() * len(channels)
    return sum(map(len, chosen.values())) * whole.get_total_flops() / max(replays, 1)


def filters(model: nn.Module, ablator: Ablator, given: argparse.Namespace) -> dict[str, list[int]]:
    """{convolution: the channels to take out}."""
    counts = ablator.channels
    names = [n for n in counts if isinstance(model.get_submodule(n), CONVOLUTIONS) and "shortcut" not in n]
    return {name: list(range(0, counts[name], given.every)) for name in given.layers or names}


def measure(name: str, model: nn.Module, split: Split, given: argparse.Namespace) -> None:
    """Print a block: everybody once in each repeat."""
    ablator = Ablator(model, split)
    chosen = filters(model, ablator, given)
    units = [(n, c) for n, channels in chosen.items() for c in channels]
    x = torch.cat([batch for _, batch, _ in split.batches(64)])
    loop = Loop(model, x, units[len(units) // 2])
    some = {n: ablator.channels[n] for n in list(chosen)[:: max(1, len(chosen) // 3)]}
    fewer = x[: min(len(x), 50)]
    spent: dict[str, list[float]] = {}
    answers: dict[str, Ablation] = {}
    for repeat in range(given.repeats):
        drawn = torch.randperm(len(units), generator=torch.Generator().manual_seed(repeat))[: given.sample].tolist()
        for setting, how in loop.settings.items():
            took = seconds(lambda how=how, drawn=drawn: loop.filters([units[i] for i in drawn], *how))
            spent.setdefault(setting, []).append(took * len(units) / len(drawn))
        if not given.no_captum:
            took = seconds(lambda: captum_filters(model, fewer, some))
            each = took / sum(some.values()) * len(x) / len(fewer)
            spent.setdefault("captum", []).append(each * len(units))
        for effort in given.efforts:
            took = seconds(lambda e=effort: answers.update({e: Ablator(model, split, effort=EFFORTS[e]).run(chosen)}))
            spent.setdefault(effort, []).append(took)
        seen = ", ".join(f"{key} {times[-1]:.1f} s" for key, times in spent.items())
        print(f"{name}, repeat {repeat + 1} of {given.repeats}: {seen}", file=sys.stderr, flush=True)
    middle = {key: statistics.median(values) for key, values in spent.items()}
    print(
        f"\n{name}: {len(units)} filters, {len(x)} images, {given.repeats} repeats, {given.threads} threads", end="; "
    )
    most = limit(ablator, x, chosen)
    print(f"limit of arithmetic x {most:.1f}")
    for key in ("default", "best", "captum"):
        how = " (batches of {}, channels last: {})".format(*loop.settings[key]) if key in loop.settings else ""
        if key in middle:
            print(f"  {'Captum' if key == 'captum' else f'loop, {key}':14} {told(spent[key])}{how}")
    reference = answers[given.efforts[0]].predicted
    for effort in given.efforts:
        found, ours = answers[effort], middle[effort]
        ratios = ", ".join(
            f"x {middle[key] / ours:.1f} {key}" for key in ("default", "best", "captum") if key in middle
        )
        differ = f"{int((found.predicted != reference).sum())} differ, {middle['best'] / ours / most:.0%} of the limit"
        again = f"{found.redone} full passes, {found.screened / found.worlds:.1%} again"
        left = f"{found.passed / found.worlds:.0%} left out, {found.wrong} of {found.audited} wrong"
        print(f"  {effort:14} {told(spent[effort])}   {ratios}   {differ}, {again}, {left}", flush=True)


def told(times: list[float]) -> str:
    return f"{statistics.median(times):8.1f} s ({min(times):.1f} to {max(times):.1f})"


def main() -> None:
    """Print a block for each network."""
    given = options(__doc__)
    for name in given.work:
        split = images(name, given)
        measure(name, network(name, len(split.classes), given.weights), split, given)


def options(about: str | None, **defaults: Any) -> argparse.Namespace:
    """What all benchmarks of CAR understand; the allocator and the threads are set."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", nargs="+", choices=list(WORK))
    parser.add_argument("--layers", nargs="+", help="only these: features.10 of AlexNet")
    parser.add_argument("--every", type=int, default=1, help="one filter in so many of each layer")
    parser.add_argument("--efforts", nargs="+", default=list(EFFORTS), choices=list(EFFORTS))
    parser.add_argument("--images", type=int, default=0, help="0: as many as the table says")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sample", type=int, default=8, help="filters that the loop is timed on in each repeat")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--no-captum", action="store_true")
    parser.set_defaults(**{"work": list(WORK), **defaults})
    given = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(given.threads)
    return given


if __name__ == "__main__":
    main()
