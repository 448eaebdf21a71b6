"""Networks that come pruned: their own zeros as a mask, which further cuts and trainings keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from torch import nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.mask import Mask
from prunescope.engine.masking import StepState
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.target import share_of

#: `keep`: every exact zero stays one; `free`: zeros are weights like others; `auto`: as `keep`, in tensors that have
#: more zeros than chance gives.
Zeros = Literal["auto", "keep", "free"]
#: Share of exact zeros in a tensor above which someone put them there: of random floats not one in a million is zero.
CHANCE = 0.01


def own_zeros(model: nn.Module, zeros: Zeros = "auto") -> Mask:
    """What a network's own zeros prune: a mask over the matrices and kernels that have some; empty when none do.

    With `auto` a tensor counts when more than 1 % of it is exactly zero, and not all: heads and gates often start at
    zero throughout, which is no pruning.

    >>> import torch
    >>> layer = nn.Linear(4, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, 0.0, 2.0, 0.0]]))
    >>> own_zeros(layer)["weight"].tolist()
    [[True, False, True, False]]

    Raises:
        PrunescopeError: unknown kind.
    """
    if zeros not in get_args(Zeros):
        raise choices("way with zeros", zeros, get_args(Zeros))
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    found = Mask.of_zeros(model, names)
    return Mask({name: kept for name, kept in found.items() if _counts(found.densities[name], zeros)})


def _counts(density: float, zeros: Zeros) -> bool:
    if zeros == "auto":
        return 0 < density < 1 - CHANCE
    return zeros == "keep" and density < 1


def joined(mask: Mask, zeros: Mask) -> Mask:
    """`mask` without what `zeros` prunes in the same tensors."""
    return Mask({name: kept & zeros[name] if name in zeros else kept for name, kept in mask.items()})


class Beside:
    """Keeps the zeros of tensors that a recipe leaves alone: an `on_step` function of a training."""

    def __init__(self, mask: Mask, zeros: Mask) -> None:
        self.mask = Mask({name: kept for name, kept in zeros.items() if name not in mask})

    def __call__(self, state: StepState) -> None:
        self.mask.apply_(state.model)


def present(model: nn.Module, mask: Mask, recipe: Recipe, shape: tuple[int, ...]) -> float:
    """How much of the network a mask leaves, in what the recipe's densities are shares of; in [0, 1].

    Args:
        recipe: with its granularity fitted.
        shape: (C, H, W) of one image.
    """
    if recipe.target == "units":
        return recipe.granularity.density(model, mask)
    return share_of(recipe.target, model, shape)(mask)


def require_prunable(recipe: Recipe, start: float) -> None:
    """Refuse what cannot be together with the zeros of a network of which `start` is left.

    Raises:
        PrunescopeError: the recipe would bring zeros back, or asks for more than there is.
    """
    for problem in _problems(recipe, start):
        raise PrunescopeError(f"recipe {recipe.name!r}: {problem}, or let the network's zeros go with zeros: free")


def _problems(recipe: Recipe, start: float) -> Iterator[str]:
    if recipe.regrow is not None:
        yield "the network comes with zeros that are to stay, and regrow would bring them back: leave it out"
    most = recipe.schedule.densities(start)[0]
    # Scopes that go by layers, and n:m, leave alone what has less already.
    whole = recipe.scope == "global" and recipe.target == "units" and recipe.granularity.name != "n:m"
    if whole and start < most < 1:
        yield f"of the network's {recipe.counted} {start:.2%} are left, and {most:.2%} are asked for: ask for fewer"
