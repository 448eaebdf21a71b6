"""Which filters of SqueezeNet matter, and what they see: CAR of all 2,976 on ImageNet images.

    python examples/squeezenet_filters.py car --weights FILE --images FOLDER --classes FILE.csv --work FOLDER [--part 0]

Files and images as for `examples/squeezenet.py`. The work is cut into pieces, one for each tenth of the images and half
of the layers; each is saved when it is done, and a run that was ended goes on with the pieces that are missing. A piece
holds predictions, no image.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from squeezenet import read_images
from torch import nn

import prunescope as ps
from prunescope.core.files import atomic_file
from prunescope.core.seeds import torch_generator
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Ablation
from prunescope.engine.extremes import ExtremesGatherer
from prunescope.engine.sweep import sweep
from prunescope.probes.concepts.cav import Scaling, fit_cavs

#: First layer of each half of the layers; both cost about the same.
PARTS = ("features.0", "features.7.squeeze")
#: Classes below are animals in ImageNet's order, and from there on things, food and landscapes.
ANIMALS = 398
#: Pieces of the images: each is spread evenly over the classes.
PIECES = 10
#: Layers whose filters are looked at.
LOOKED_AT = ["features.0", "features.3.squeeze", "features.3.expand1x1", "features.3.expand3x3"]
#: Where concept scores are read: the maps before the classifier, averaged over places.
AT = "classifier.1:input"
#: Groups of classes that serve as concepts, as ranges of ImageNet's order.
GROUPS = {
    "animal": [(0, 398)], "bird": [(7, 25), (80, 101), (127, 147)], "reptile or amphibian": [(25, 69)],
    "mammal": [(101, 107), (147, 300), (330, 389)], "dog": [(151, 269)], "insect": [(300, 327)], "food": [(924, 970)],
}  # fmt: skip
#: Filters of each layer whose reasons are looked at.
SAMPLE = 6
EFFORT = ps.Effort(precision="bf16", memory=3 * 2**30)


def pieces(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Positions of the images of each piece."""
    order = labels.argsort(stable=True)
    return {f"images{piece}": order[piece::PIECES] for piece in range(PIECES)}


def network_of(weights: Path) -> nn.Module:
    """SqueezeNet 1.0 with these weights."""
    return ps.build_model(
        {"name": "torchvision:squeezenet1_0", "weights": str(weights)}, classes=1000, channels=3, seed=0
    )


def measure(network: nn.Module, split: ps.Split, work: Path, parts: list[int]) -> None:
    """Predictions without every unit, piece by piece; pieces that are there are left alone."""
    for name, index in pieces(split.labels).items():
        some = split.subset(index)
        for part in parts:
            path = work / f"part{part}_{name}.npz"
            if not path.exists():
                ablator = Ablator(network, some, effort=EFFORT, batch_size=22)
                names = list(ablator.channels)
                cuts = [*map(names.index, PARTS), len(names)]
                _save(path, ablator.run(names[cuts[part] : cuts[part + 1]], on_worlds=_told(path.stem)), some)


def _told(name: str) -> Callable[[int, int], None]:
    started, percent = time.monotonic(), [-1]

    def tell(done: int, of: int) -> None:
        if 100 * done // of > percent[0]:
            percent[0] = 100 * done // of
            print(f"{name}: {percent[0]} % after {time.monotonic() - started:.0f} s", flush=True)

    return tell


def _save(path: Path, found: Ablation, split: ps.Split) -> None:
    """One image per class: the drop of a class is that of its image."""
    labels = split.labels.numpy()
    facts = {name: getattr(found, name) for name in ("worlds", "redone", "screened", "passed", "audited", "wrong")}
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, ids=np.asarray(split.ids), labels=labels, dense=found.dense.numpy(),
            predicted=found.predicted.numpy(), drop=found.drop.numpy()[:, labels].astype(np.float32),
            layer=np.repeat(list(found.layers), [len(channels) for channels in found.layers.values()]), **facts,
        )  # fmt: skip


def look(network: nn.Module, split: ps.Split, work: Path) -> None:
    """What the filters of the first layers see, on all images; and the largest answer of every filter."""
    rows = []
    for view in ps.what_filters_see(network, split, LOOKED_AT):
        for channel in range(len(view.colour)):
            chroma = None if view.chroma is None else view.chroma[channel]
            rows.append({
                "layer": view.layer, "channel": channel, "colour": view.colour[channel], "shape": view.shape[channel],
                "colour_selective": int(view.colour_selective[channel]), "chroma": chroma,
                "classes": view.classes[channel], "live": int(not view.extremes.dead[channel]),
            })  # fmt: skip
        print(view.layer, view.base_rate, flush=True)
    with atomic_file(work / "sees.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)][:-1]
    best = ExtremesGatherer(tuple(layers), 1, "max", "images")
    sweep(network, {"images": split}, [best], batch_size=10)
    with atomic_file(work / "largest.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: best.found[name].top.values[:, 0] for name in layers})


def concepts(network: nn.Module, split: ps.Split) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """Directions (K, 512) of groups of classes before the classifier, fitted on every second image; their quality."""
    with torch.inference_mode():
        x = torch.cat([network.eval().features(x).mean((2, 3)) for _, x, _ in split.batches(20)])  # type: ignore[operator]
    table = torch.tensor(
        [[any(low <= y < high for low, high in group) for group in GROUPS.values()] for y in split.labels]
    )
    fit, held = torch.arange(0, len(split), 2), torch.arange(1, len(split), 2)
    scaling = Scaling.of(x[fit])
    cavs = fit_cavs((scaling(x[fit]), table[fit].long()), (scaling(x[held]), table[held].long()))
    facts = [
        {"concept": name, "images": int(table[:, k].sum()), "held_out_auroc": float(cavs.auroc[k])}
        for k, name in enumerate(GROUPS)
    ]
    return cavs.svm.weights * scaling.factor, facts


def reasons(network: nn.Module, split: ps.Split, work: Path) -> None:
    """Agreement of heat maps and of concept scores without a sample of filters, on the images of two pieces."""
    generator = torch_generator(0, "filters whose reasons are looked at")
    channels = Ablator(network, split).channels
    sample = {name: torch.randperm(n, generator=generator)[:SAMPLE].tolist() for name, n in channels.items()}
    some = split.subset(torch.cat(list(pieces(split.labels).values())[:2]).sort().values)
    directions, facts = concepts(network, split)
    pd.DataFrame(facts).to_csv(work / "concepts.csv", index=False)
    scores = ps.concept_agreement(network, some, sample, directions, at=AT, on_worlds=_told("concepts"))
    maps = ps.explanation_agreement(network, some, sample, on_worlds=_told("maps"))
    with atomic_file(work / "reasons.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file, layer=[name for name, _ in maps.units], channel=[channel for _, channel in maps.units],
            spearman=maps.spearman, pearson=maps.pearson, blank=maps.blank, dense_blank=maps.dense_blank,
            concepts=scores.correlation, labels=some.labels.numpy(),
        )  # fmt: skip


def main() -> None:
    """One of the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["car", "look", "reasons"])
    for name in ("--weights", "--images", "--classes", "--work"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--part", type=int, nargs="*", default=[0, 1], help="of the layers, for `car`: 0, 1 or both")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    network, split = network_of(given.weights), read_images(given.images, given.classes)
    if given.step == "car":
        measure(network, split, given.work, given.part)
    else:
        {"look": look, "reasons": reasons}[given.step](network, split, given.work)


if __name__ == "__main__":
    main()
