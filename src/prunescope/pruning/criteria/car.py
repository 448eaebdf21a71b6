"""What accuracy loses without a filter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.mask import Mask
from prunescope.data.split import Normalisation, Split
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Effort, Precision
from prunescope.metrics.ablation import order
from prunescope.pruning.gradients import Data, some
from prunescope.pruning.greedy import Greedy, greedy
from prunescope.pruning.race import ROUNDING
from prunescope.pruning.removals import car_table
from prunescope.pruning.scoring import Batches, Criterion, criteria, over_filters

Among = Literal["layer", "network"]
#: {layer: filters that are still there}.
_Alive = Mapping[str, list[int]]


@criteria.register("car")
@dataclass(frozen=True)
class Car(Criterion):
    """Classification accuracy reduction: accuracy of the network minus accuracy without the filter (Abbasi-Asl and Yu
    2017). The filter is zero where it is read, after norm and activation. Ties go by the drop in the true class's
    log-probability, then by position.

    Greedy, as in the paper: one filter goes, all that are left are measured anew, and so on; a filter's score is its
    place in that order as a share of the filters, in (0, 1]. Otherwise its CAR in the network as it is, in steps of one
    image, and ties within a step.

    The classifier, whose outputs are the classes, and layers of which no filter is read come after all others, in the
    order of their L1 norms, so that they go last when all compete.

    Attributes:
        greedy: whether to measure anew after each removal: as many measurements as there are pairs of filters, not as
            there are filters.
        among: of greedy removal: each `layer` by itself while the others are whole, or one order for the `network`.
        n_batches: of training images to read; 0 is all.
        precision: `32`, or `bf16` with 32 where it is not sure.
        memory: MB (2^20 bytes) that values may take; too few are refused with the number of bytes that is enough.
    """

    greedy: bool = True
    among: Among = "layer"
    n_batches: int = 10
    precision: Precision = "32"
    memory: int = Effort.memory // 2**20
    summary: ClassVar[str] = "accuracy reduction without the filter, measured anew after each removal"
    source: ClassVar[str] = "Abbasi-Asl and Yu 2017"
    cost: ClassVar[str] = "part of a forward x filters; if greedy x pairs of filters"
    per: ClassVar[Literal["weight", "filter"]] = "filter"
    needs_data: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for what, value, allowed in (("among", self.among, Among), ("precision", self.precision, Precision)):
            if value not in get_args(allowed):
                raise choices(what, value, get_args(allowed), "criterion 'car'")
        if self.memory < 1:
            raise PrunescopeError(f"criterion 'car': memory must be 1 MB or more, got {self.memory}")

    def score(self, model: nn.Module, mask: Mask, *, batches: Batches | None, seed: int) -> Mapping[str, Tensor]:
        split, device = _gathered(some(batches, self.n_batches)), next(model.parameters()).device
        effort = Effort(self.precision, memory=self.memory * 2**20)
        ablator = Ablator(model, split, effort=effort, device=device)
        alive = {name.removesuffix(".weight"): kept.flatten(1).any(1).nonzero().squeeze(1).tolist()
                 for name, kept in mask.items() if name.removesuffix(".weight") in ablator.channels}  # fmt: skip
        if not any(alive.values()):
            raise PrunescopeError("criterion 'car' takes out filters one by one, and no layer that may be cut has any")
        if self.greedy:
            found = greedy(
                model, split, layers=alive, per_layer=self.among == "layer", effort=effort, device=device
            )  # fmt: skip
            places = _places(found, alive, self.among)
        else:
            places = _reductions(ablator, alive)
        values = {f"{layer}.weight": _filled(alive[layer], places[layer], ablator.channels[layer]) for layer in alive}
        return over_filters(_with_the_others(values, model, mask), mask)


def _places(found: Greedy, alive: _Alive, among: Among) -> dict[str, list[float]]:
    """{layer: place of each filter in the order, as a share of all in it}; what never goes has the last, 1."""
    total, gone = {layer: len(channels) for layer, channels in alive.items()}, dict[tuple[str, int], float]()
    if among == "network":
        total = dict.fromkeys(total, sum(total.values()))
    for place, (layer, channel) in enumerate(found.order, start=1):
        before = sum(1 for name, _ in gone if name == layer) + 1 if among == "layer" else place
        gone[layer, channel] = before / total[layer]
    return {layer: [gone.get((layer, c), 1.0) for c in channels] for layer, channels in alive.items()}


def _reductions(ablator: Ablator, alive: _Alive) -> dict[str, list[float]]:
    """{layer: CAR of each filter, plus less than one image by its place among all}."""
    found = car_table(ablator, alive)
    places = np.argsort(order(found, rounding=ROUNDING).order) / len(found.losses)
    values = ((found.losses - found.gains).sum(1) + places) / found.images
    parts = np.split(values, np.cumsum([len(channels) for channels in alive.values()])[:-1])
    return {layer: part.tolist() for layer, part in zip(alive, parts, strict=True)}


def _filled(channels: list[int], values: list[float], count: int) -> Tensor:
    """0 for filters that are gone."""
    found = torch.zeros(count, dtype=torch.float64)
    found[channels] = torch.tensor(values, dtype=torch.float64)
    return found


def _with_the_others(values: dict[str, Tensor], model: nn.Module, mask: Mask) -> dict[str, Tensor]:
    largest = max(float(value.max()) for value in values.values())
    for name, kept in mask.items():
        if name not in values:
            size = model.get_parameter(name).detach().cpu().double().abs().view(len(kept), -1).sum(1)
            values[name] = largest + 1 + size / size.max().clamp_min(torch.finfo(size.dtype).tiny)
    return values


class _AsTheyAre(Normalisation):
    """Images that are normalised already."""

    def __call__(self, images: Tensor) -> Tensor:
        return images


def _gathered(data: Data) -> Split:
    """Batches as a split, in memory."""
    images, labels = map(torch.cat, zip(*data, strict=True))
    labels = labels.cpu()
    classes = tuple(map(str, range(int(labels.max()) + 1)))
    return Split(images, labels, np.arange(len(labels)).astype(str), classes, _AsTheyAre())
