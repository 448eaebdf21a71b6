"""Orders in which the channels of layers may go, and what accuracy becomes along them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.mask import Mask
from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.units import Units, units_of
from prunescope.engine.untouched import untouched
from prunescope.engine.without import Order, predictions
from prunescope.metrics.ablation import Reductions, order
from prunescope.models.graph import channel_graph
from prunescope.pruning.granularities.coupled import Members
from prunescope.pruning.race import ROUNDING
from prunescope.pruning.scoring import Batches, Criterion


def car_table(ablator: Ablator, layers: Sequence[str] | Units | None = None) -> Reductions:
    """CAR and class CAR of all units of these layers, from the first to the last, with drops in log-probability."""
    return ablator.run(layers).reductions(ablator.split)


def one_shot(ablator: Ablator, layers: Sequence[str] | Units | None = None) -> Order:
    """All units of these layers by their CAR in the whole network, ranked once: the baseline of greedy pruning.

    Ties as there. The last channel of each layer is not in it.
    """
    units = units_of(ablator.channels, layers)
    named = [(layer, channel) for layer, channels in units.items() for channel in channels]
    ranked = order(car_table(ablator, units), rounding=ROUNDING).order
    return without_last([named[i] for i in ranked], ablator.channels)


def removal_order(
    by: Criterion,
    model: nn.Module,
    layers: Sequence[str],
    *,
    batches: Batches | None = None,
    members: Members = "incoming",
    shape: tuple[int, ...] = (),
    seed: int = 0,
) -> Order:
    """The channels of these layers by a criterion's scores, lowest first, as its cuts would take them.

    Of equal ones the last goes first, as in a cut. The last channel of each layer is not in it.

    Args:
        by: a channel's score is the mean of its weights' scores.
        members: which weights these are: a filter's own (`incoming`), those that read it (`outgoing`), or `both`.
        batches: of training images, for criteria that need them.
        shape: (C, H, W) of one image, for weights that read.

    Raises:
        PrunescopeError: a layer without a weight of its own, or one whose channels nothing reads.
    """
    parameters = dict(model.named_parameters())
    for layer in layers:
        if f"{layer}.weight" not in parameters:
            raise choices("layer with weights", layer, [n.removesuffix(".weight") for n in parameters if "weight" in n])
    weights = _weights(model, layers, members, shape)
    mask = Mask.dense(model, list(dict.fromkeys(name for found in weights.values() for name, _, _ in found)))
    with untouched(model):
        scores = by.score(model, mask, batches=batches, seed=seed)
    named = [(layer, channel) for layer in layers for channel in range(len(parameters[f"{layer}.weight"]))]
    values = torch.cat([_means(scores, weights[layer], len(parameters[f"{layer}.weight"])) for layer in layers])
    if bool(values.isnan().any()):
        raise PrunescopeError(f"criterion {by.name!r} gave NaN scores; is the network's loss finite?")
    ranked = np.lexsort((-np.arange(len(named)), values.numpy()))
    count = {layer: len(parameters[f"{layer}.weight"]) for layer in layers}
    return without_last([named[i] for i in ranked], count)


def without_last(order: Sequence[tuple[str, int]], channels: Mapping[str, int]) -> Order:
    """An order of removal, less what would take the last channel of a layer."""
    left, found = dict(channels), []
    for layer, channel in order:
        if left[layer] > 1:
            left[layer] -= 1
            found.append((layer, channel))
    return tuple(found)


#: A parameter, the axis along which it has channels, and which of the layer's each is (-1: another layer's).
_Read = tuple[str, int, Tensor]


def _weights(
    model: nn.Module, layers: Sequence[str], members: Members, shape: tuple[int, ...]
) -> dict[str, list[_Read]]:  # fmt: skip
    """{layer: weights whose scores count for its channels}."""
    found: dict[str, list[_Read]] = {layer: [] for layer in layers}
    for layer in layers if members != "outgoing" else ():
        own = f"{layer}.weight"
        found[layer].append((own, 0, torch.arange(len(model.get_parameter(own)))))
    if members == "incoming":
        return found
    graph = channel_graph(model, shape)
    for layer in layers:
        units = graph.axes[f"{layer}.weight"][0]
        position = torch.full((graph.units + 1,), -1)
        position[units] = torch.arange(len(units))
        position[-1] = -1  # what is fixed has the last place
        read = [(name, 1, position[axes[1]]) for name, axes in graph.axes.items() if 1 in axes]
        found[layer] += [part for part in read if bool((part[2] >= 0).any())]
        if not found[layer]:
            raise PrunescopeError(f"nothing reads the channels of {layer!r} by weights alone; take members='incoming'")
    return found


def _means(scores: Mapping[str, Tensor], parts: Sequence[_Read], channels: int) -> Tensor:
    """Mean score (channels,) of each channel's weights, float64."""
    total, count = torch.zeros(channels + 1, dtype=torch.float64), torch.zeros(channels + 1, dtype=torch.float64)
    for name, axis, channel in parts:
        values = scores[name].detach().cpu().double().transpose(0, axis).flatten(1)
        total.index_add_(0, channel % (channels + 1), values.sum(1))
        count.index_add_(0, channel % (channels + 1), torch.full((len(values),), float(values.shape[1])).double())
    return (total / count)[:-1]


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy along an order of removal.

    Attributes:
        order: the removals.
        accuracy: after 0, 1, ... of them (n + 1,), 0 to 1.
        recall: the same of each class (n + 1, C); NaN for classes without images.
    """

    order: Order
    accuracy: Array
    recall: Array


def removal_curve(ablator: Ablator, split: Split, order: Sequence[tuple[str, int]]) -> Curve:
    """Accuracy on a split after each removal of an order, nothing retrained: one pass over the images.

    A channel that is gone is zero where it is read. After each removal only what depends on its layer runs again.

    Raises:
        PrunescopeError: an unknown layer or channel, or one that goes twice.
    """
    gone: dict[str, list[int]] = {}
    sets: list[dict[str, list[int]]] = [{}]
    for layer, channel in order:
        gone = {**gone, layer: [*gone.get(layer, []), channel]}
        sets.append(gone)
    right = (predictions(ablator, split, sets) == split.labels).double()
    return Curve(tuple(order), right.mean(1).numpy(), _recall(right, split))


def _recall(right: Tensor, split: Split) -> Array:
    hits = torch.zeros(len(right), len(split.classes), dtype=torch.float64).index_add_(1, split.labels, right)
    found: Array = (hits / split.labels.bincount(minlength=len(split.classes))).numpy()
    return found
