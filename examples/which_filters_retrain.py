"""Prune a little, retrain, look again: greedy CAR beside other orders, each of which sees the network as it is by then.

    python examples/which_filters_retrain.py --data FOLDER --runs FOLDER [--methods car-greedy l1 taylor random]

An eighth of a layer's filters goes, then the network is fine-tuned as in `which_filters.py`, and so on until a quarter
is left; all methods with the same images in the same order. One file for a layer and seed; the tables of
`which_filters_tables.py` have a row for each.
"""

from __future__ import annotations

import numpy as np
from torch import nn
from which_filters import Study, study_of

import prunescope as ps
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.without import predictions
from prunescope.pruning.greedy import Greedy, Until
from prunescope.pruning.orders import METHODS, Ground

#: Parts in which a layer goes, and how many of them do.
PARTS, GO = 8, 6
LOW = ps.Effort("bf16")


def accuracies(study: Study, model: nn.Module, layer: str, method: str, seed: int) -> list[np.ndarray]:
    """Right, by removals and images that report, each time after retraining."""
    units, right = Ablator(model, study.choose).channels[layer], []
    part, tune = units // PARTS, study.tune()

    def measure(gone: list[int]) -> None:
        said = predictions(Ablator(model, study.report), study.report, [{layer: gone}])[0]
        right.append((said == study.report.labels).numpy())

    def after(found: Greedy) -> None:
        if found.steps[-1].tuned:
            measure([channel for _, channel in found.order])

    if method == "car-greedy":
        until = Until(steps=part * GO)
        ps.greedy(
            model, study.choose, layers=[layer], until=until, fine_tune=tune, every=part, effort=LOW, seed=seed,
            on_step=after,
        )  # fmt: skip
        return right
    gone: list[int] = []
    for _ in range(GO):
        order = METHODS[method](Ground(model, study.choose, LOW, seed=seed), layer)
        gone += [channel for _, channel in order if channel not in gone][:part]
        tune(model, {layer: gone})
        measure(gone)
    return right


def main() -> None:
    """Every layer and seed that is not there yet."""
    study = study_of(__doc__)
    given = study.given
    for name in given.networks:
        for number in given.layers:
            for seed in given.seeds:
                layer = f"features.conv{number}"

                def made(name: str = name, seed: int = seed, layer: str = layer) -> dict[str, np.ndarray]:
                    rights = [accuracies(study, study.network(name, seed), layer, m, seed) for m in given.methods]
                    units = Ablator(study.network(name, seed), study.choose).channels[layer]
                    removed = units // PARTS * np.arange(1, GO + 1)
                    return {"methods": np.array(given.methods), "removed": removed, "right": np.array(rights)}

                study.piece(f"retrain.{name}.{seed}.{number}", made)


if __name__ == "__main__":
    main()
