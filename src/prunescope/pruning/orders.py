"""Orders of removal by name: greedy CAR, and what it is compared with. All see the same images.

Rivals after Abbasi-Asl and Yu 2017 (weights in, weights out, chance) and what came before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from prunescope.data.split import Split
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.without import Order
from prunescope.pruning.granularities.coupled import Members
from prunescope.pruning.greedy import greedy
from prunescope.pruning.race import Race
from prunescope.pruning.removals import one_shot, removal_order, without_last
from prunescope.pruning.scoring import criterion
from prunescope.pruning.shapley import shapley_values

#: A walk of Shapley sampling ends when accuracy has been this near to that of the empty layer for five removals.
NEAR = 0.02
#: Images in one batch, for criteria that average over batches.
_BATCH = 32


@dataclass(frozen=True, eq=False)
class Ground:
    """What orders are made from.

    Attributes:
        model: trained.
        split: images that choose.
        effort, race: of CAR.
        walks: random orders that Shapley values are averaged over.
        seed: of races, of chance and of these orders.
    """

    model: nn.Module
    split: Split
    effort: Effort = field(default_factory=Effort)
    race: Race = field(default_factory=Race)
    walks: int = 5
    seed: int = 0
    device: torch.device | str = "cpu"

    @cached_property
    def ablator(self) -> Ablator:
        """The network captured, ready to be asked."""
        return Ablator(self.model, self.split, effort=self.effort, seed=self.seed, device=self.device)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels) of all images that choose."""
        for _, x, y in self.split.batches(_BATCH, self.device):
            yield x, y


#: Order in which the channels of a layer go; the last one stays.
Method: TypeAlias = Callable[[Ground, str], Order]


def _greedy(ground: Ground, layer: str) -> Order:
    return greedy(
        ground.model, ground.split, layers=[layer], race=ground.race, effort=ground.effort, seed=ground.seed,
        device=ground.device,
    ).order  # fmt: skip


def _one_shot(ground: Ground, layer: str) -> Order:
    return one_shot(ground.ablator, [layer])


def _shapley(ground: Ground, layer: str) -> Order:
    units = ground.ablator.channels[layer]
    budget = 2 + ground.walks * (units - 1)
    credit = shapley_values(ground.ablator, [layer], budget=budget, seed=ground.seed, tolerance=NEAR)
    return without_last(credit.order, ground.ablator.channels)


def _by(name: str, members: Members = "incoming", **options: Any) -> Method:
    """A criterion's scores of the layer's weights."""

    def method(ground: Ground, layer: str) -> Order:
        return removal_order(
            criterion(name, **options), ground.model, [layer], batches=ground.batches, members=members,
            shape=ground.split.shape, seed=ground.seed,
        )  # fmt: skip

    return method


#: Methods by name. `l1` and `l2` are norms of the filter's own weights (Li et al. 2017), `outgoing` is the L1 norm of
#: the weights that read it (He et al. 2014), `taylor` the squared change of the loss to first order when the filter's
#: weights go (Molchanov et al. 2019), `apoz` the share of activations that are not zero (Hu et al. 2016), `shapley` the
#: fair share of accuracy (Ghorbani and Zou 2020), of few orders.
METHODS: Mapping[str, Method] = {
    "car-greedy": _greedy,
    "car-one-shot": _one_shot,
    "l1": _by("magnitude", p=1),
    "l2": _by("magnitude", p=2),
    "outgoing": _by("magnitude", "outgoing", p=1),
    "random": _by("random"),
    "taylor": _by("taylor-gate", n_batches=0),
    "apoz": _by("apoz", n_batches=0),
    "shapley": _shapley,
}
