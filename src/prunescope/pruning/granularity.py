"""Granularity: what is cut at once. Single weights, or units of weights that stay or go together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from prunescope.core.configure import configure
from prunescope.core.errors import choices
from prunescope.core.mask import Mask, keep_top
from prunescope.core.registry import Registry
from prunescope.models.layers import prunable
from prunescope.pruning.scope import Scope, layer_densities

#: How the scores of a unit's weights become the unit's.
Reduction = Literal["sum", "mean"]

#: Granularities by name. Register a frozen dataclass that subclasses `Granularity`.
granularities: Registry[type[Granularity]] = Registry(
    "granularity", group="prunescope.granularities", package="prunescope.pruning.granularities"
)


class Granularity(ABC):
    """One way to cut. Densities are shares of units: of weights, of filters, of blocks.

    Class attributes:
        summary: one line for `prunescope list granularities`.
        plural: what the units are called.
    """

    name: ClassVar[str] = "unregistered"
    summary: ClassVar[str] = ""
    plural: ClassVar[str] = "weights"

    @property
    def whole_filters(self) -> bool:
        """Whether its units are made of whole filters, each with a score of its own."""
        return False

    @abstractmethod
    def keep(self, model: nn.Module, scores: Mapping[str, Tensor], mask: Mask, density: float, scope: Scope) -> Mask:
        """The mask nested in `mask` that keeps a share `density` of all units, those with the highest scores."""

    @abstractmethod
    def redraw(self, model: nn.Module, mask: Mask, generator: torch.Generator) -> Mask:
        """A mask with as many units in every tensor, at random places."""

    def fitted(self, model: nn.Module, shape: tuple[int, ...], ignore: Sequence[str] = ()) -> Granularity:
        """Itself, or a copy that knows the network, run on images of `shape` (C, H, W). Call it before all else."""
        return self

    def names(self, model: nn.Module, ignore: Sequence[str] = ()) -> list[str]:
        """Parameters that a mask of this granularity is over: those that may be cut."""
        return prunable(model, ignore=(*ignore, *self.spares(model)))

    def scored(self, mask: Mask) -> Mask:
        """The part of a mask whose weights a criterion is to score."""
        return mask

    def layers(self, mask: Mask) -> dict[str, Mask]:
        """{layer: the part of the mask that cutting units of this layer alone changes}."""
        return {name: Mask({name: kept}) for name, kept in mask.items()}

    def density(self, model: nn.Module, mask: Mask) -> float:
        """Share of the units of which anything is kept."""
        return mask.density

    def spares(self, model: nn.Module) -> tuple[str, ...]:
        """Modules that this granularity must not cut, though single weights of them could go."""
        return ()

    def check(self, densities: Sequence[float]) -> None:
        """Refuse densities (after each round) that this granularity cannot reach; any, unless overridden."""
        del densities


def granularity(name: str, **options: Any) -> Granularity:
    """A registered granularity with its options: `granularity("block", rows=4)`."""
    return configure(granularities[name], options, f"granularity {name!r}")


@granularities.register("weight")
@dataclass(frozen=True)
class Weights(Granularity):
    """Every weight for itself."""

    summary: ClassVar[str] = "single weights"

    def keep(self, model: nn.Module, scores: Mapping[str, Tensor], mask: Mask, density: float, scope: Scope) -> Mask:
        return keep_in(scores, mask, density, scope, _shapes(mask))

    def redraw(self, model: nn.Module, mask: Mask, generator: torch.Generator) -> Mask:
        return Mask({name: permuted(kept.flatten(), generator).view_as(kept) for name, kept in mask.items()})


@dataclass(frozen=True)
class Units(Granularity):
    """Units of weights within one tensor.

    Attributes:
        reduce: `sum` or `mean` of the scores of a unit's weights. Within a layer they rank alike; globally `mean` does
            not favour layers with large units.
    """

    reduce: Reduction = "mean"

    def __post_init__(self) -> None:
        if self.reduce not in get_args(Reduction):
            raise choices("reduction", self.reduce, get_args(Reduction))

    @abstractmethod
    def units(self, shape: torch.Size, groups: int) -> Tensor:
        """Number (0 ... n - 1) of the unit of every weight of a tensor of this shape, int64 and broadcasting to it."""

    def keep(self, model: nn.Module, scores: Mapping[str, Tensor], mask: Mask, density: float, scope: Scope) -> Mask:
        units, reduced = self._units(model, mask), {}
        for name, kept in mask.items():
            values = scores[name].detach().cpu().double().masked_fill(~kept, 0.0)
            total = _per_unit(values, units[name])
            sizes = units[name].flatten().bincount() * (kept.numel() // units[name].numel())
            reduced[name] = total / sizes if self.reduce == "mean" else total
        chosen = keep_in(reduced, _alive(units, mask), density, scope, _shapes(mask))
        return Mask({name: chosen[name][units[name]] & kept for name, kept in mask.items()})

    def redraw(self, model: nn.Module, mask: Mask, generator: torch.Generator) -> Mask:
        units = self._units(model, mask)
        drawn = {name: permuted(live, generator)[units[name]] for name, live in _alive(units, mask).items()}
        return Mask({name: found.expand(mask[name].shape) for name, found in drawn.items()})

    def density(self, model: nn.Module, mask: Mask) -> float:
        return _alive(self._units(model, mask), mask).density

    def _units(self, model: nn.Module, mask: Mask) -> dict[str, Tensor]:
        """{parameter: unit of each of its weights, with one where all along an axis are of the same unit}."""
        groups = {name: getattr(model.get_submodule(name.rpartition(".")[0]), "groups", 1) for name in mask}
        found = {name: self.units(kept.shape, groups[name]) for name, kept in mask.items()}
        return {name: units[(None,) * (mask[name].ndim - units.ndim)] for name, units in found.items()}


def _shapes(mask: Mask) -> dict[str, torch.Size]:
    return {name: kept.shape for name, kept in mask.items()}


def keep_in(
    scores: Mapping[str, Tensor],
    mask: Mask,
    density: float,
    scope: Scope,
    shapes: Mapping[str, torch.Size],
    least: int = 0,
) -> Mask:
    """Of all units together, or of each tensor's; a tensor that already has fewer keeps what it has.

    Args:
        scores, mask: {tensor: score of every unit, and whether it is still there}.
        shapes: of the weights that the units are made of, for scopes that ask for them.
        least: units that every tensor keeps, where the scope gives each a number.
    """
    if scope == "global":
        return keep_top(scores, mask, round(density * mask.total))
    units = {name: kept.numel() for name, kept in mask.items()}
    shares, parts = layer_densities(shapes, density, scope, units), dict[str, Tensor]()
    for name, kept in mask.items():
        parts |= keep_top(
            scores, Mask({name: kept}), min(max(least, round(shares[name] * kept.numel())), int(kept.sum()))
        )
    return Mask(parts)


def _alive(units: Mapping[str, Tensor], mask: Mask) -> Mask:
    """{parameter: whether anything of each unit is kept}."""
    return Mask({name: _per_unit(kept, units[name]) > 0 for name, kept in mask.items()})


def _per_unit(values: Tensor, units: Tensor) -> Tensor:
    """Sum of a tensor's values over each unit, float64; `units` broadcasts to the tensor."""
    inside = [axis for axis, size in enumerate(units.shape) if size == 1]
    summed = values.sum(inside, keepdim=True, dtype=torch.float64) if inside else values.double()
    return units.flatten().bincount(summed.flatten())


def permuted(values: Tensor, generator: torch.Generator) -> Tensor:
    """The values in another order."""
    return values[torch.randperm(len(values), generator=generator)]
