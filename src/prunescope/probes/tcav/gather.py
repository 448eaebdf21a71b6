"""Activations of examples, one vector per image and layer, and the gradients that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.data.split import Split
from prunescope.engine.sweep import Needs, Pass, find_module, sweep
from prunescope.engine.vectors import vectors
from prunescope.models.axes import last_learned, units_last
from prunescope.models.stages import last_of_stages

Positions = Literal["mean", "all"]
#: {layer: what tells where its units are}, see `models.axes.units_last`.
Layers = Mapping[str, nn.Module | None]


def chosen_layers(model: nn.Module, layers: tuple[str, ...], split: Split) -> Layers:
    """The layers that are named, or the last of every stage."""
    for name in layers:
        find_module(model, name.partition(":")[0])
        if name.partition(":")[2] == "pooled":
            raise PrunescopeError(f"there are no gradients towards {name!r}: name the layer itself")
    return last_learned(model, list(dict.fromkeys(layers)) or list(last_of_stages(model, split.shape)))


def as_vectors(activation: Tensor, layer: str, positions: Positions, learned: nn.Module | None = None) -> Tensor:
    """(B, D): maps and tokens averaged over positions, or laid out in full.

    Args:
        learned: what tells where the units of maps are (`Layers`).
    """
    if positions == "all":
        return activation.flatten(1)
    last = activation.ndim == 4 and units_last(learned, activation.shape, layer)
    return vectors(activation, layer, units_last=last)


def as_derivatives(gradient: Tensor, positions: Positions, layer: str = "", learned: nn.Module | None = None) -> Tensor:
    """(B, D): d logit / d what `as_vectors` gives. For averages, the sum over positions: adding v to the average is
    adding v at every position."""
    if positions == "all" or gradient.ndim == 2:
        return gradient.flatten(1)
    if gradient.ndim == 3:
        return gradient.sum(1)
    return gradient.sum((1, 2) if units_last(learned, gradient.shape, layer) else (2, 3))


@dataclass(eq=False)
class Activations:
    """Gathers the vectors of whole splits."""

    layers: Layers
    positions: Positions
    splits: tuple[str, ...]
    kept: dict[tuple[str, str], list[Tensor]] = field(default_factory=dict)

    @property
    def needs(self) -> Needs:
        return Needs(layers=tuple(self.layers), splits=self.splits)

    def update(self, batch: Pass) -> None:
        for layer, learned in self.layers.items():
            found = as_vectors(batch.activations[layer].detach(), layer, self.positions, learned).float().cpu()
            self.kept.setdefault((batch.split, layer), []).append(found)

    def finish(self) -> Record:
        return Record("activations")

    def of(self, split: str, layer: str) -> Tensor:
        """Float32 (N, D)."""
        found = torch.cat(self.kept[split, layer])
        if not bool(found.isfinite().all()):
            raise PrunescopeError(f"layer {layer!r} gives values that are not finite; are the weights?")
        return found


def activations(
    model: nn.Module, splits: Mapping[str, Split], layers: Layers, positions: Positions = "mean",
    *, batch_size: int, device: torch.device | str,
) -> Activations:  # fmt: skip
    """Vectors of all images of the splits at the layers, by one pass. Memory: images x dimensions x 4 bytes."""
    found = Activations(layers, positions, tuple(splits))
    sweep(model, splits, [found], batch_size=batch_size, device=device)
    return found
