"""Which filters may go? Greedy CAR beside eight other orders of removal, on CIFAR-10 (Abbasi-Asl and Yu 2017).

    python examples/which_filters.py --data FOLDER --runs FOLDER
    python examples/which_filters_tables.py --runs FOLDER --out FOLDER

The first line trains the networks, takes their layers apart and looks at their filters; every piece is a file in
`runs`, and what is there is not made again. The second writes the tables. Three splits: training images train,
fine-tune and show what filters see; images held out of them choose; test images report.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import prunescope as ps
from prunescope.core.files import atomic_file
from prunescope.data.subsets import stratified
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.correlations import channel_correlations
from prunescope.engine.without import predictions
from prunescope.pruning.greedy import FineTune
from prunescope.pruning.orders import METHODS
from prunescope.pruning.trails import Trail

AUGMENT = ps.Augmentation(crop_padding=4, flip=True)
#: {network: (how to build it, epochs, learning rate)}
NETWORKS = {
    "alexnet": ({"name": "alexnet_cifar", "dropout": 0.2}, 8.0, 0.03),
    "vgg11": ({"name": "vgg11"}, 2.0, 0.1),
}
TUNING = ps.Training(epochs=1, lr=0.01)
#: Best images of a filter. The class index asks for their most common class.
BEST = 25


def part(split: ps.Split, count: int) -> ps.Split:
    """So many images, every class in its share, the same ones each time."""
    return split.subset(stratified(split.labels, count, seed=0)) if count < len(split) else split


class Study:
    """Data, and the folder of pieces."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.runs = given, given.runs
        self.data = ps.load_data({"name": "cifar10", "root": str(given.data)})
        self.choose, self.report = part(self.data.val, given.choose), part(self.data.test, given.report)

    def network(self, name: str, seed: int) -> nn.Module:
        """Trained, or read."""
        config, epochs, rate = NETWORKS[name]
        model = ps.build_model(config, classes=10, channels=3, seed=seed)
        file = self.runs / f"{name}-{seed}.safetensors"
        if file.exists():
            model.load_state_dict(load_file(file))
            return model.eval()
        epochs = self.given.epochs or epochs
        training = ps.Training(epochs=epochs, lr=rate, nesterov=True, schedule="onecycle", augment=AUGMENT)
        state = self.runs / f"{name}-{seed}.state"
        ps.fit(
            model, self.data.train, training, seed=seed, validate=self.data.val, state=state, device="cpu",
            on_epoch=lambda entry: print(name, seed, entry, flush=True),
        )  # fmt: skip
        with atomic_file(file) as temporary:
            save_file({key: value.contiguous() for key, value in model.state_dict().items()}, temporary)
        return model.eval()

    def piece(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> None:
        """Make a file of arrays, unless it is there."""
        file = self.runs / f"{name}.npz"
        if file.exists():
            return
        arrays = make()
        with atomic_file(file) as temporary, temporary.open("wb") as out:
            np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
        print(file.name, flush=True)

    def layer(self, name: str, seed: int, number: int) -> None:
        """Everything of one layer of one network."""
        model, layer = self.network(name, seed), f"features.conv{number}"
        where = f"{name}.{seed}.{number}"
        self.piece(f"sees.{where}", lambda: self.sees(model, number))
        self.piece(f"classes.{where}", lambda: self.classes(model, layer))
        place = f"features.relu{number}"
        self.piece(f"alike.{where}", lambda: channel_correlations(model, self.choose, [place]))
        tune = self.tune()
        for method in self.given.methods:

            def trail(method: str = method) -> dict[str, np.ndarray]:
                found = ps.compare_removals(
                    model, self.choose, self.report, [layer], methods=[method], fine_tune=tune, seed=seed,
                    maps={layer: place}, effort=ps.Effort(precision="bf16"),
                    every=len(model.get_parameter(f"{layer}.weight")) // 8, at=self.given.shares,
                )  # fmt: skip
                return arrays_of(found.trails[0])

            self.piece(f"trail.{where}.{method}", trail)
        self.piece(f"choosing.{where}", lambda: self.choosing(model, layer, where))

    def choosing(self, model: nn.Module, layer: str, where: str) -> dict[str, np.ndarray]:
        """Accuracy (methods, counts) on the images that choose, along each order: what it flatters."""
        ablator, rows = Ablator(model, self.choose), []
        counts = [ablator.channels[layer] * k // 4 for k in range(4)]
        for method in self.given.methods:
            with np.load(self.runs / f"trail.{where}.{method}.npz") as trail:
                order = trail["order"].tolist()
            said = predictions(ablator, self.choose, [{layer: order[:count]} if count else {} for count in counts])
            rows.append((said == self.choose.labels).double().mean(1).numpy())
        return {"methods": np.array(self.given.methods), "removed": np.array(counts), "accuracy": np.array(rows)}

    def tune(self) -> FineTune:
        """The same images in the same order for all."""
        return ps.fine_tuning(part(self.data.train, self.given.tune), TUNING, seed=0, device="cpu")

    def control(self, name: str, seed: int) -> None:
        """The whole network, as it is and fine-tuned as the pruned ones are."""

        def right() -> dict[str, np.ndarray]:
            model, found = self.network(name, seed), {}
            for key in ("whole", "tuned"):
                ablator = Ablator(model, self.report)
                found[key] = (predictions(ablator, self.report, [{}])[0] == self.report.labels).numpy()
                self.tune()(model, {})
            return found

        self.piece(f"control.{name}.{seed}.0", right)

    def sees(self, model: nn.Module, number: int) -> dict[str, np.ndarray]:
        """What the filters of a layer answer to, behind the norm where there is one; of the first layer its kernels."""
        names = dict(model.named_modules())
        place = f"features.bn{number}" if f"features.bn{number}" in names else f"features.conv{number}"
        split, options = part(self.data.train, self.given.look), ps.Look(k=BEST, side=8, shuffles=0)
        (view,) = ps.what_filters_see(model, split, [place], options=options)
        found = {"colour": view.colour, "labels": view.labels, "dead": view.extremes.dead}
        if number == 1:
            (kernels,) = ps.what_filters_see(model, split.subset(torch.arange(9)), ["features.conv1"], options=options)
            assert kernels.chroma is not None
            found["chroma"] = kernels.chroma
        return found

    def classes(self, model: nn.Module, layer: str) -> dict[str, np.ndarray]:
        """Class CAR of each filter in the whole network."""
        split = part(self.data.val, self.given.classes)
        found = ps.car(model, split, layers=[layer], effort=ps.Effort(precision="bf16")).reductions
        return {"car": found.car, "class_car": found.class_car, "class_drop": found.class_drop, "counts": found.counts}


def arrays_of(trail: Trail) -> dict[str, np.ndarray]:
    """A trail as arrays."""
    return {
        "order": trail.order, "units": np.array(trail.units), "removed": trail.removed, "right": trail.right,
        "diversity": trail.diversity, "tuned_at": np.array([*trail.tuned], dtype=np.int64),
        "tuned": np.array([*trail.tuned.values()]),
    }  # fmt: skip


def study_of(about: str | None) -> Study:
    """What the command line asks for; one thread."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10: folders of images, or the python version")
    parser.add_argument("--runs", type=Path, required=True, help="folder of networks and pieces")
    parser.add_argument("--networks", nargs="+", default=["alexnet"], choices=NETWORKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--layers", nargs="+", type=int, default=[1, 2], help="numbers of convolutions")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.25, 0.5, 0.75], help="when to fine-tune")
    parser.add_argument("--epochs", type=float, default=0, help="0: 8 (alexnet) and 2 (vgg11)")
    for name, count in (("choose", 300), ("report", 1000), ("tune", 2560), ("look", 10_000), ("classes", 2000)):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="IMAGES")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.runs.mkdir(parents=True, exist_ok=True)
    return Study(given)


def main() -> None:
    """Train, take apart, look."""
    study = study_of(__doc__)
    given = study.given
    for name in given.networks:
        for seed in given.seeds:
            study.control(name, seed)
        for number in given.layers:
            for seed in given.seeds:
                study.layer(name, seed, number)


if __name__ == "__main__":
    main()
