"""Sanity checks of heat maps (Adebayo et al. 2018): does a map change when the network's weights turn random?"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.core.types import Array
from prunescope.engine.attribution.base import Method
from prunescope.metrics.maps import spearman, ssim
from prunescope.metrics.unit_scores import row_means
from prunescope.models.layers import execution_order

#: Normalised images and the class to explain.
Batches = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Sanity:
    """How alike maps of N images stay while S stages of weights turn random, from the top down.

    Attributes:
        stages: names of the layers of each stage, the head first.
        cascading: (2, S, N): Spearman's rho and SSIM of each image's map with the untouched network's, when this stage
            and all above it are random; NaN where one of the two is blank.
        independent: the same when only this stage is random.
        blank: bool (N,): the untouched network's map is blank.
        lost: bool (N,): the map of the network whose weights are all random is.
    """

    stages: tuple[tuple[str, ...], ...]
    cascading: Array
    independent: Array
    blank: Array
    lost: Array

    def means(self, of: str) -> Array:
        """(S, 2): mean Spearman's rho and SSIM over images, of `cascading` or `independent`; NaN where no image has
        a value."""
        values = {"cascading": self.cascading, "independent": self.independent}[of]
        return np.stack([row_means(values[0]), row_means(values[1])], axis=1)


def sanity_check(model: nn.Module, method: Method, batches: Batches, *, stages: int = 8, seed: int = 0) -> Sanity:
    """Maps of copies of the network, whose weights are drawn anew stage by stage, beside its own.

    Every parameter tensor is drawn from a normal distribution of its own mean and spread, so that activations keep
    their range; a tensor of equal values, and statistics of batch norms, stay. The model must be in eval mode.

    Args:
        batches: images and the class to explain, the same throughout.
        stages: at most so many, of about as many layers each.
        seed: of the random weights.

    Raises:
        PrunescopeError: no parameters, or a network that the method cannot explain.
    """
    groups = parameter_stages(model, stages)
    own = _maps(model, method, batches)
    cascade, found = copy.deepcopy(model), {"cascading": list[Array](), "independent": list[Array]()}
    last = own
    for group in groups:
        randomise(cascade, group, seed)
        last = _maps(cascade, method, batches)
        found["cascading"].append(_alike(own, last))
        one = copy.deepcopy(model)
        randomise(one, group, seed)
        found["independent"].append(_alike(own, _maps(one, method, batches)))
    names = tuple(tuple(dict.fromkeys(name.rpartition(".")[0] or name for name in group)) for group in groups)
    cascading, independent = (np.stack(values, axis=1) for values in found.values())
    return Sanity(names, cascading, independent, _blank(own), _blank(last))


def parameter_stages(model: nn.Module, stages: int) -> list[list[str]]:
    """Names of all parameters in at most so many groups, from the head down; the parameters of a module stay together.

    Raises:
        PrunescopeError: the network has no parameters.
    """
    owners: dict[str, list[str]] = {}
    for name, _ in model.named_parameters():
        owners.setdefault(name.rpartition(".")[0], []).append(name)
    if not owners:
        raise PrunescopeError(f"sanity: {type(model).__name__} has no parameters that could be random")
    place = {name: i for i, name in enumerate(execution_order(model))}
    order = sorted(owners, key=lambda owner: place.get(owner, -1), reverse=True)
    parts = np.array_split(np.arange(len(order)), min(stages, len(order)))
    return [[name for i in part for name in owners[order[i]]] for part in parts]


@torch.no_grad()
def randomise(model: nn.Module, names: Iterable[str], seed: int) -> None:
    """Draw these parameters anew, in place. What a parameter becomes depends on the seed, its name, mean and spread."""
    parameters = dict(model.named_parameters())
    for name in names:
        value = parameters[name]
        noise = torch.randn(value.shape, generator=torch_generator(seed, "random weights", name)).to(value)
        value.copy_(value.mean() + value.std(correction=0) * noise)


def _maps(model: nn.Module, method: Method, batches: Batches) -> Array:
    explain = method.explainer(model)
    found: Array = torch.cat([explain(x, target).cpu() for x, target in batches]).double().numpy()
    return found


def _alike(own: Array, other: Array) -> Array:
    """(2, N)."""
    return np.stack([spearman(own, other), ssim(own, other)])


def _blank(maps: Array) -> Array:
    found: Array = maps.max(axis=(1, 2)) <= 0
    return found
