"""Seconds to score and cut at every criterion: ours beside torch.nn.utils.prune and Torch-Pruning where they have it.

    python benchmarks/criteria.py [--model resnet50] [--images 32] [--size 64] [--batch-size 16] [--only CRITERION]

Same network (random weights), images, batches and threads. Single weights are cut globally to 20 %, filters and
channels to half of each layer. A peer's time has all that it takes to know what goes: graph, gradients, scores,
choosing; nothing is taken out of the network. Iterated criteria cut once, `movement` takes as many steps as there are
batches, `obd` two probes, `obs` blocks of 8. Ratio: our time over the peer's. The peer's `activation` is measured where
the next layer reads it.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn.utils import prune
from torch_pruning.pruner.importance import ActivationImportance, FPGMImportance

from prunescope.core.compat import torchvision_module
from prunescope.engine.allocator import tune_allocator
from prunescope.models.layers import prunable
from prunescope.pruning.granularity import granularity
from prunescope.pruning.scoring import criteria, criterion, cut
from prunescope.pruning.turn import whole_mask

WEIGHTED = [nn.Conv2d, nn.Linear]


class Ours:
    """Scoring and cutting, as a library call does both."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, batch_size: int) -> None:
        self.model, self.images, self.labels, self.batch_size = model, images, labels, batch_size

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.images.split(self.batch_size), self.labels.split(self.batch_size), strict=True)

    def __call__(self, name: str, units: str = "weight", **options: Any) -> None:
        steps = -(-len(self.images) // self.batch_size)
        quick = {"synflow": {"iterations": 1}, "movement": {"steps": steps}, "obd": {"probes": 2}, "obs": {"block": 8}}
        fitted = granularity(units, **options).fitted(self.model, tuple(self.images.shape[1:]))
        mask, single = whole_mask(self.model, fitted), units == "weight"
        cut(
            self.model, mask, criterion(name, **quick.get(name, {})), keep=0.2 if single else 0.5,
            scope="global" if single else "layer", granularity=fitted, batches=self.batches,
        )  # fmt: skip


class Torch:
    """`torch.nn.utils.prune`, on a copy, which it changes."""

    def __init__(self, ours: Ours) -> None:
        self.model = copy.deepcopy(ours.model)

    def layers(self) -> list[tuple[nn.Module, str]]:
        return [(self.model.get_submodule(name.rpartition(".")[0]), "weight") for name in prunable(self.model)]

    def globally(self, method: Any) -> None:
        prune.global_unstructured(self.layers(), pruning_method=method, amount=0.8)

    def filters(self, p: int) -> None:
        for layer, name in self.layers()[:-1]:
            prune.ln_structured(layer, name, amount=0.5, n=p, dim=0)


class TorchPruning:
    """Its pruner up to the point where channels would go."""

    def __init__(self, ours: Ours) -> None:
        self.ours, self.model = ours, copy.deepcopy(ours.model)

    def choose(self, importance: Any) -> None:
        head = [module for module in self.model.modules() if isinstance(module, nn.Linear)][-1:]
        pruner = tp.pruner.BasePruner(
            self.model, self.ours.images[:1], importance, pruning_ratio=0.5, ignored_layers=head
        )
        list(pruner.step(interactive=True))

    def gradients(self) -> None:
        self.model.zero_grad()
        for x, y in self.ours.batches():
            F.cross_entropy(self.model(x), y).backward()

    def taylor(self, importance: Any) -> None:
        self.gradients()
        self.choose(importance)

    def hessian(self, importance: Any) -> None:
        for x, y in self.ours.batches():
            for loss in F.cross_entropy(self.model(x), y, reduction="none"):
                self.model.zero_grad()
                loss.backward(retain_graph=True)
                importance.accumulate_grad(self.model)
        self.choose(importance)

    def activation(self, importance: Any) -> None:
        with torch.no_grad(), importance.compute_importance(self.model):
            for x, _ in self.ours.batches():
                self.model(x)
        self.choose(importance)


Run = Callable[[], None]


class Contest(NamedTuple):
    """One line of the table. `peer` makes a run on a network of its own."""

    criterion: str
    units: str
    ours: Run
    title: str = ""
    peer: Callable[[], Run] | None = None


def contests(ours: Ours) -> Iterator[Contest]:
    """Criteria of weights at single weights, magnitude at filters, and at channels all that make sense there."""
    globally = {"magnitude": prune.L1Unstructured, "random": prune.RandomUnstructured}
    for name in criteria:
        if criteria[name].per == "weight":
            method = globally.get(name)
            peer = ("torch global", partial(_globally, ours, method)) if method else ()
            yield Contest(name, "weight", partial(ours, name), *peer)
    filters = partial(_filters, ours)
    yield Contest("magnitude", "filter", partial(ours, "magnitude", "filter"), "torch structured", filters)
    for name, (run, importance) in importances().items():
        options = {"members": "both", "reduce": "sum"} if criteria[name].per == "weight" else {}
        peer = ("Torch-Pruning", partial(_pruning, ours, run, importance)) if run else ()
        yield Contest(name, "channel", partial(ours, name, "channel", **options), *peer)


def importances() -> dict[str, tuple[str, Any]]:
    """{criterion: (what Torch-Pruning does before it chooses, its importance)}; nothing where it has none."""
    peer = tp.importance
    return {
        "magnitude": ("choose", peer.GroupMagnitudeImportance(p=1, group_reduction="sum", target_types=WEIGHTED)),
        "random": ("choose", peer.RandomImportance()),
        "bn-scale": ("choose", peer.BNScaleImportance()),
        "fpgm": ("choose", FPGMImportance()),
        "activation": ("activation", ActivationImportance(target_types=WEIGHTED)),
        "apoz": ("", None),
        "chip": ("", None),
        "snip": ("taylor", peer.GroupTaylorImportance(target_types=WEIGHTED)),
        "taylor-gate": ("taylor", peer.GroupTaylorImportance(multivariable=True, target_types=WEIGHTED)),
        "fisher": ("hessian", peer.GroupHessianImportance(target_types=WEIGHTED)),
    }


def _globally(ours: Ours, method: Any) -> Run:
    return partial(Torch(ours).globally, method)


def _filters(ours: Ours) -> Run:
    return partial(Torch(ours).filters, 1)


def _pruning(ours: Ours, run: str, importance: Any) -> Run:
    return partial(getattr(TorchPruning(ours), run), importance)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def compared(contest: Contest, repeats: int, clock: Callable[[], float], patience: float = 3.0) -> list[float]:
    """Median seconds of ours and of the peer, who take turns, at most `repeats` or until `patience` is through."""
    makers = [lambda: contest.ours, *([contest.peer] if contest.peer else [])]
    found: list[list[float]] = [[] for _ in makers]
    while len(found[0]) < repeats and sum(map(sum, found)) < patience:
        for make, times in zip(makers, found, strict=True):
            run = make()
            start = clock()
            run()
            times.append(clock() - start)
    return [statistics.median(times) for times in found]


def main() -> None:
    """Print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=3, help="at most; the median counts")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of all threads, less disturbed by others")
    parser.add_argument("--only", default="", help="a criterion")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tune_allocator()
    torch.manual_seed(0)
    model = torchvision_module("torchvision.models").get_model(args.model, weights=None).eval()
    images, labels = torch.randn(args.images, 3, args.size, args.size), torch.randint(1000, (args.images,))
    ours = Ours(model, images, labels, args.batch_size)
    with torch.no_grad():
        model.train()(images)  # so that activations and gradients are of a size that occurs
        model.eval()(images[: args.batch_size])  # what is slow at first, once
    weights = sum(p.numel() for p in model.parameters())
    print(
        f"{args.model}, {weights / 1e6:.1f} M weights, {args.images} images of {args.size} pixels, batches of "
        f"{args.batch_size}, {args.threads} threads, {args.clock} clock"
    )
    print(f"{'criterion':12} {'cut':8} {'ours (s)':>9} {'peer (s)':>9} {'ratio':>6}  peer")
    for contest in contests(ours):
        if args.only in ("", contest.criterion):
            own, *peer = compared(contest, args.repeats, CLOCKS[args.clock])
            numbers = f"{peer[0]:9.2f} {own / peer[0]:6.2f}" if peer else f"{'-':>9} {'-':>6}"
            print(f"{contest.criterion:12} {contest.units:8} {own:9.2f} {numbers}  {contest.title}", flush=True)


if __name__ == "__main__":
    main()
