"""What single units of SqueezeNet can tell: MIS, class selectivity and dissection of all its convolutions.

    python examples/squeezenet_units.py --weights FILE --images FOLDER --classes FILE.csv --work FOLDER

Files and images as for `examples/squeezenet.py`. Every network is two pieces, each saved when it is done; a run that
was ended goes on with what is missing. A piece holds positions of images and numbers, no image.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from squeezenet import cut, read_images
from squeezenet_unit_judges import held_out, judges, neighbours
from squeezenet_unit_labels import grouped, half_size
from torch import Tensor, nn

import prunescope as ps
from prunescope.core.files import atomic_file
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Array, Record
from prunescope.engine.detectors import Question
from prunescope.engine.dissection import DissectionGatherer, unit_places
from prunescope.engine.embedding.encoder import Encoder
from prunescope.engine.extremes import ExtremesGatherer
from prunescope.engine.mis import drawn_units
from prunescope.engine.sweep import Needs, Pass, sweep
from prunescope.engine.units import unit_layers
from prunescope.metrics.selectivity import class_selectivity, class_selectivity_of_means
from prunescope.probes.unit_layers import dead_units

#: Tasks of a unit (N): how many images stand at its two ends follows from it.
TASKS = (5, 20)
REFERENCES = 9
#: Tasks are drawn twice: what MIS owes to the draw is its noise floor.
DRAWS = (0, 1)
#: {network: share of all weights that stays, global magnitude, not retrained}; the others are made in `networks`.
FURTHER = {"30 %": 0.3, "20 %": 0.2}
DISSECTION = Question(draws=10)
BATCH = 20
#: Of selectivity from best images, as in the probe.
BEST, COVER = 100, 0.5


def networks(weights: Path) -> dict[str, Callable[[], nn.Module]]:
    """As it came, pruned further, and its architecture with random weights."""

    def build(**options: str) -> nn.Module:
        return ps.build_model({"name": "torchvision:squeezenet1_0", **options}, classes=1000, channels=3, seed=0)

    def came() -> nn.Module:
        return build(weights=str(weights))

    pruned = {name: lambda share=share: cut(came(), {}, share, retrain=False)[0] for name, share in FURTHER.items()}
    return {"as it came": came, **pruned, "random": build}


class Answers:
    """What a ReLU lets through of every unit, (N, U) a layer: mean over places, and largest."""

    def __init__(self, layers: Sequence[str], images: int) -> None:
        self.layers, self.images = tuple(layers), images
        self.means, self.peaks = dict[str, Tensor](), dict[str, Tensor]()

    @property
    def needs(self) -> Needs:
        return Needs(layers=self.layers)

    def update(self, batch: Pass) -> None:
        for layer in self.layers:
            answer = batch.activations[layer].clamp(min=0)
            for kept, found in ((self.means, answer.mean((2, 3))), (self.peaks, answer.amax((2, 3)))):
                kept.setdefault(layer, found.new_empty(self.images, found.shape[1]))[batch.index] = found

    def finish(self) -> Record:
        return Record("answers")


def selectivities(answers: Answers, split: ps.Split, groups: Tensor, idle: Array) -> dict[str, Array]:
    """As `ps.selectivity` has both: for images (one a class), for groups of classes, and for groups that images have
    exchanged, which is what comes by chance."""
    means, peaks = (torch.cat(list(kept.values()), 1).double().numpy() for kept in (answers.means, answers.peaks))
    mixed = groups[torch.randperm(len(groups), generator=torch_generator(0, "groups by chance"))]
    best = np.argsort(-peaks, axis=0, kind="stable")[:BEST]
    found = {}
    for name, labels in (("images", split.labels), ("groups", groups), ("chance", mixed)):
        own = labels.numpy()
        classes = np.stack([means[own == one].mean(0) for one in np.unique(own)], axis=1)
        found[f"{name}.means"] = np.where(idle, np.nan, class_selectivity_of_means(classes))
        picked = np.take_along_axis(peaks, best, axis=0).T
        found[f"{name}.best"] = np.where(idle, np.nan, class_selectivity(picked, own[best].T, COVER))
    return found


def looked_at(network: nn.Module, split: ps.Split, groups: Tensor) -> dict[str, Array]:
    """Tasks of every unit, which do not depend on who judges, and selectivities: one pass."""
    places = unit_layers(network, kinds=("conv",))
    pooled = [f"{name}:mean" for name in places]
    extremes = {n: ExtremesGatherer(pooled, n * (REFERENCES + 1), "mean", "test", 0) for n in TASKS}
    answers = Answers(list(places), len(split))
    sweep(network, {"test": split}, [*extremes.values(), answers], batch_size=BATCH)
    found: dict[str, Array] = {}
    for n, gatherer in extremes.items():
        for draw in DRAWS:
            units = drawn_units(gatherer.found, len(split), references=REFERENCES, seed=draw)
            found |= {f"mis{n}.up{draw}": units.tasks.up.astype(np.int16)}
            found |= {f"mis{n}.down{draw}": units.tasks.down.astype(np.int16)}
        found |= {f"mis{n}.constant": units.constant, f"mis{n}.tied": units.tied}
    layers = units.layers
    idle = dead_units(network, {name: np.arange(width) for name, width in layers.items()})
    return (
        found | selectivities(answers, split, groups, idle) | {"layer": np.repeat(list(layers), list(layers.values()))}
    )


def dissected(network: nn.Module, split: ps.Split, labelled: ps.Split) -> dict[str, Array]:
    """Overlaps of every unit with concepts: two passes, for all maps would not fit into memory.

    Args:
        split: what runs through the network.
        labelled: the same images, smaller, with labels of pixels; maps are compared with them at their size.
    """
    gatherer = DissectionGatherer(network, labelled, unit_places(network, split), DISSECTION)
    gatherer.split = split
    sweep(network, {"test": split}, [gatherer], batch_size=BATCH)
    return {name: getattr(gatherer.found, name) for name in ("iou", "chance", "dead", "tied", "cutoffs", "area")}


def piece_file(work: Path, step: str, network: str) -> Path:
    """Where a network's numbers are."""
    return work / f"{step}_{network.strip(' %').replace(' ', '_')}.npz"


def save(path: Path, arrays: dict[str, Array]) -> None:
    """All or nothing."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def main() -> None:
    """Judges, then networks; what is there is left alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--weights", "--images", "--classes", "--work"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument(
        "--only", nargs="*", choices=["as it came", *FURTHER, "random"], help="some of the networks, or none"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    split = read_images(given.images, given.classes)
    groups = grouped(split)
    if not (given.work / "judges.npz").exists():
        found = judges(split, groups)
        facts = {name: {"neighbours": neighbours(vectors, groups.numpy())} for name, vectors in found.items()}
        facts["groups"]["held_out"] = held_out(split, groups, Encoder())
        facts["groups, second"]["held_out"] = held_out(split, groups, Encoder(kernel=5, seed=1))
        (given.work / "judges.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        save(given.work / "judges.npz", found | {"groups of images": groups.numpy()})
        print(facts, flush=True)
    labelled: list[ps.Split] = []

    def pixels(network: nn.Module) -> dict[str, Array]:
        labelled[:] = labelled or [half_size(split)]
        return dissected(network, split, labelled[0])

    steps = {"images": lambda network: looked_at(network, split, groups), "pixels": pixels}
    for step, measure in steps.items():
        for name, make in networks(given.weights).items():
            path = piece_file(given.work, step, name)
            if (given.only is None or name in given.only) and not path.exists():
                started = time.process_time()
                found = measure(make())
                seconds = time.process_time() - started
                save(path, found | {"seconds": np.array(seconds)})
                print(f"{step}, {name}: {seconds:.0f} s of a core", flush=True)


if __name__ == "__main__":
    main()
