"""How often TCAV calls a concept that is a coin toss significant: repeats that share no image, and repeats that do.

python benchmarks/tcav_rate.py [--sets 40] [--concepts 20]

A small network on drawn shapes; each set has so many concepts whose labels are tossed. A test at 5 % should reject 5 %.
"Shared" is TCAV as usually done: every repeat takes the same positives, against other images each time, and Welch's t
test compares scores with those of as many random pairs.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import torch
from scipy.stats import ttest_ind
from torch import Tensor, nn

from prunescope.core.seeds import torch_generator
from prunescope.core.types import Array
from prunescope.data.load import load_data
from prunescope.data.split import Dataset
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.metrics.tcav import standing_out
from prunescope.models.zoo import build_model
from prunescope.probes.concepts.svm import linear_svm
from prunescope.probes.tcav.examples import deal
from prunescope.probes.tcav.gather import as_derivatives

LAYER = "features.relu2"


def views(model: nn.Module, data: Dataset) -> tuple[Tensor, Tensor, Tensor]:
    """Averaged activations of the training images; derivatives of the test images and their classes."""
    kept: list[Tensor] = []
    handle = model.get_submodule(LAYER).register_forward_hook(lambda _m, _i, output: kept.append(output))
    x, y = data.train, data.test
    with torch.no_grad():
        model.eval()(x.normalisation(x.images[:]))
    logits = model(y.normalisation(y.images[:]))
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, y.labels[:, None]).sum(), kept[1])
    return kept[0].mean((2, 3)), as_derivatives(gradient, "mean"), y.labels


def scores(seen: tuple[Tensor, Tensor, Tensor], labels: Tensor) -> tuple[Array, Array]:
    """(shares, strengths) of class 0, one per column of labels."""
    a, gradients, classes = seen
    z = (a - a.mean(0)) / (a - a.mean(0)).square().mean().sqrt()
    normals = linear_svm(z, labels, c=0.01).weights.float()
    mine = gradients[classes == 0]
    cosines = torch.nn.functional.normalize(mine, dim=1) @ torch.nn.functional.normalize(normals, dim=1).T
    return (cosines > 0).double().mean(0).numpy(), cosines.double().mean(0).numpy()


def shared(labels: Tensor, repeats: int, generator: torch.Generator) -> Tensor:
    """(N, repeats): the same positives each time, and as many other images, drawn anew."""
    positive = (labels == 1).nonzero()[:, 0][:50]
    found = torch.full((len(labels), repeats), -1, dtype=torch.int8)
    found[positive] = 1
    others = (found[:, 0] < 0).nonzero()[:, 0]
    for column in found.T:
        column[others[torch.randperm(len(others), generator=generator)[: len(positive)]]] = 0
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=40)
    parser.add_argument("--concepts", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--random", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)  # of t tests on scores that are all equal
    data = load_data({"name": "shapes", "size": 16, "train": 800, "val": 50, "test": 300})
    model = build_model({"name": "small_cnn", "width": 8}, classes=len(data.classes), channels=3, seed=0)
    fit(model, data.train, Training(epochs=3, lr=0.05), seed=0)
    seen = views(model, data)
    rejected: dict[str, list[float]] = {"apart, strength": [], "apart, share": [], "shared, share": []}
    for seed in range(options.sets):
        generator = torch_generator(seed, "rate")
        labels = (torch.rand(len(data.train), options.concepts, generator=generator) < 0.5).to(torch.int8)
        dealt = deal(labels, options.repeats, options.random, (3, 50), generator)
        again = torch.cat([shared(column, options.repeats, generator) for column in labels.T], 1)
        (share, strength), (once_more, _) = scores(seen, dealt.labels), scores(seen, again)
        for k in range(options.concepts):
            mine, chance = dealt.vectors_of(k).numpy(), dealt.random_of(k).numpy()
            rejected["apart, strength"].append(float(standing_out(strength[mine], strength[chance])))
            rejected["apart, share"].append(float(standing_out(share[mine], share[chance])))
            part = once_more.reshape(options.concepts, -1)[k]
            rejected["shared, share"].append(float(ttest_ind(part, share[chance], equal_var=False).pvalue))
    for name, p in rejected.items():
        print(f"repeats {name:16} {100 * np.mean(np.array(p) < 0.05):5.1f} % of {len(p)} tests rejected at 5 %")


if __name__ == "__main__":
    main()
