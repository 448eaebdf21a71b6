"""Channels with all that hangs on them: what can be taken out of the network for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, choices
from prunescope.core.mask import Mask
from prunescope.models.graph import ChannelGraph, channel_graph
from prunescope.models.layers import matches, require_matches
from prunescope.pruning.granularity import Granularity, Reduction, granularities, keep_in, permuted
from prunescope.pruning.scope import Scope

Members = Literal["incoming", "outgoing", "both"]


@granularities.register("channel")
@dataclass(frozen=True)
class Channels(Granularity):
    """Channels, neurons of linear layers, heads of attention, each with everything that must go with it: its weights
    and bias, the scale and shift of its norm, the weights that read it, and the channels tied to it by sums, products
    and groups. `prunescope shrink` then takes them out. Every layer keeps at least one.

    Attributes:
        reduce: `mean` or `sum` of the scores of a unit's weights.
        members: whose scores count: `incoming` weights (a filter's own), `outgoing` (those that read it) or `both`.
    """

    reduce: Reduction = "mean"
    members: Members = "incoming"
    summary: ClassVar[str] = "channels, neurons and heads with all that hangs on them, to be taken out for good"
    plural: ClassVar[str] = "channels"

    def __post_init__(self) -> None:
        for value, allowed, what in (
            (self.reduce, get_args(Reduction), "reduction"),
            (self.members, get_args(Members), "members"),
        ):
            if value not in allowed:
                raise choices(what, value, allowed)

    @property
    def whole_filters(self) -> bool:
        return self.members == "incoming"

    def fitted(self, model: nn.Module, shape: tuple[int, ...], ignore: Sequence[str] = ()) -> Channels:
        """Bound to the channels of one network. Layers in `ignore` keep all their outputs."""
        graph, bound = channel_graph(model, shape), type(self)(self.reduce, self.members)
        family, makers = graph.families()
        require_matches(ignore, dict(model.named_parameters()))
        spared = [any(matches(name, pattern) for pattern in ignore for name in names) for names in makers]
        free = ~torch.tensor(spared, dtype=torch.bool)[family] if len(family) else torch.zeros(0, dtype=torch.bool)
        object.__setattr__(bound, "_bound", _Bound(graph, family, makers, free))
        return bound

    @property
    def bound(self) -> _Bound:
        found: _Bound | None = getattr(self, "_bound", None)
        if found is None:
            raise PrunescopeError("granularity 'channel' must know the network: use granularity.fitted(model, shape)")
        return found

    def names(self, model: nn.Module, ignore: Sequence[str] = ()) -> list[str]:
        known = dict(model.named_parameters())
        return [name for name, axes in self.bound.graph.axes.items()
                if name in known and any(self.bound.touches(units) for units in axes.values())]  # fmt: skip

    def scored(self, mask: Mask) -> Mask:
        graph = self.bound.graph
        read = [name for name in mask if mask[name].dim() > 1]
        wanted = {
            "incoming": [name for name in read if name in graph.makers and self.bound.touches(graph.axes[name][0])],
            "outgoing": [name for name in read if 1 in graph.axes[name]],
            "both": read,
        }[self.members]  # fmt: skip
        return Mask({name: mask[name] for name in wanted})

    def keep(self, model: nn.Module, scores: Mapping[str, Tensor], mask: Mask, density: float, scope: Scope) -> Mask:
        bound, alive, value = self.bound, self._alive(mask), self._reduced(scores, mask)
        least = len(bound.free_makers) / max(1, int(bound.free.sum()))
        if density < least:
            raise PrunescopeError(
                f"every layer keeps at least one channel: {least:.2%} of all in {len(bound.free_makers)} layers, "
                f"so not {density:.2%}"
            )
        shapes = {"/".join(names): mask[names[0]].shape for names in bound.free_makers}
        parts = bound.by_family(torch.where(alive, value, 0.0))
        best = {name: part.argmax() for name, part in bound.by_family(value.masked_fill(~alive, -torch.inf)).items()}
        for name, index in best.items():  # no layer is lost: its best unit outranks every other
            parts[name][index] = torch.inf
        chosen = keep_in(parts, Mask(bound.by_family(alive)), density, scope, shapes, least=1)
        return bound.mask(mask, chosen)

    def layers(self, mask: Mask) -> dict[str, Mask]:
        bound, alive, found = self.bound, self._alive(mask), {}
        for names in bound.free_makers:
            others = torch.where(bound.family == bound.makers.index(names), alive, True)
            parts = {name: bound.graph.kept(name, others, kept.shape) for name, kept in mask.items()}
            found["/".join(names)] = Mask({name: part for name, part in parts.items() if not bool(part.all())})
        return found

    def redraw(self, model: nn.Module, mask: Mask, generator: torch.Generator) -> Mask:
        alive = self.bound.by_family(self._alive(mask))
        return self.bound.mask(
            Mask({name: torch.ones_like(kept) for name, kept in mask.items()}),
            {name: permuted(part, generator) for name, part in alive.items()},
        )

    def density(self, model: nn.Module, mask: Mask) -> float:
        return float(self._alive(mask)[self.bound.free].double().mean()) if bool(self.bound.free.any()) else 1.0

    def _alive(self, mask: Mask) -> Tensor:
        """Bool per unit: whether any weight that makes it is kept."""
        graph = self.bound.graph
        alive = torch.zeros(graph.units + 1)
        for name in graph.makers:
            if name in mask:
                alive.index_add_(0, graph.axes[name][0] % (graph.units + 1), mask[name].flatten(1).any(1).float())
        return alive[:-1] > 0

    def _reduced(self, scores: Mapping[str, Tensor], mask: Mask) -> Tensor:
        """Score per unit, float64."""
        units = self.bound.graph.units + 1  # the last collects what is FIXED
        total, count = torch.zeros(units, dtype=torch.float64), torch.zeros(units, dtype=torch.float64)
        for name, axes in self.bound.graph.axes.items():
            for axis in {"incoming": (0,), "outgoing": (1,), "both": (0, 1)}[self.members]:
                if name not in scores or axis not in axes:
                    continue
                kept = mask[name].transpose(0, axis).flatten(1)
                values = scores[name].detach().cpu().double().transpose(0, axis).flatten(1).masked_fill(~kept, 0.0)
                total.index_add_(0, axes[axis] % units, values.sum(1))
                count.index_add_(0, axes[axis] % units, torch.full_like(values[:, 0], values.shape[1]))
        return (total / count.clamp_min(1) if self.reduce == "mean" else total)[:-1]


@dataclass(frozen=True, eq=False)
class _Bound:
    """The units of one network that may go: their graph, their families, and whether they may."""

    graph: ChannelGraph
    family: Tensor
    makers: tuple[tuple[str, ...], ...]
    free: Tensor

    @property
    def free_makers(self) -> list[tuple[str, ...]]:
        """Makers of the families that may go."""
        return [self.makers[i] for i in self.family[self.free].unique().tolist()]

    def touches(self, units: Tensor) -> bool:
        """Whether any of these units may go."""
        return bool(torch.cat([self.free, torch.zeros(1, dtype=torch.bool)])[units].any())

    def by_family(self, values: Tensor) -> dict[str, Tensor]:
        """{makers, joined by slashes: values of the family's units}."""
        return {"/".join(names): values[self._of(names)].clone() for names in self.free_makers}

    def mask(self, mask: Mask, chosen: Mapping[str, Tensor]) -> Mask:
        """The part of `mask` in which only the chosen units of each family are left."""
        alive = torch.ones(self.graph.units, dtype=torch.bool)
        for names in self.free_makers:
            alive[self._of(names)] = chosen["/".join(names)]
        return Mask({name: kept & self.graph.kept(name, alive, kept.shape) for name, kept in mask.items()})

    def _of(self, names: tuple[str, ...]) -> Tensor:
        return self.family == self.makers.index(names)
