"""What a network says without sets of channels: many sets, one after the other, in one pass over the images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Split
from prunescope.engine.ablation.ablate import Ablator
from prunescope.engine.ablation.deciders import Exact
from prunescope.engine.ablation.hooked import Hooked
from prunescope.engine.ablation.replay import Stage
from prunescope.engine.ablation.units import Units, units_of
from prunescope.engine.sweep import require_finite

#: Removals (layer, channel), first removed first.
Order: TypeAlias = tuple[tuple[str, int], ...]


@torch.inference_mode()
def predictions(ablator: Ablator, split: Split, sets: Sequence[Units]) -> Tensor:
    """Class of every image without each of the sets of channels, int16 (sets, images).

    A channel that is gone is zero where it is read, as in `Ablator`. From one set to the next only what depends on the
    layers in which they differ is computed again: neighbours should differ in few layers, and late ones. What is within
    rounding of a tie is decided by a full forward pass.

    Raises:
        PrunescopeError: logits that are not finite, an unknown layer or channel, images of another shape than the
            network was captured for, or an ablator with another removal than `zero`.
    """
    if ablator.effort.removal != "zero":
        raise PrunescopeError(f"sets of channels are made zero; got an ablator with removal {ablator.effort.removal!r}")
    if split.shape != ablator.split.shape:
        raise PrunescopeError(f"the network was captured for images {ablator.split.shape}, got {split.shape}")
    named = [units_of(ablator.channels, units) for units in sets]
    tensors = [{name: torch.tensor(channels, dtype=torch.int64) for name, channels in units.items()} for units in named]
    found = torch.empty(len(tensors), len(split), dtype=torch.int16)
    for index, x, _ in split.batches(ablator.batch_size, ablator.device):
        for row, logits in enumerate(_one_by_one(ablator.exact, x, tensors)):
            require_finite(logits, index, split)
            found[row, index] = logits.argmax(1).to("cpu", torch.int16)
    return found


def _one_by_one(by: Exact | Hooked, images: Tensor, sets: Sequence[Mapping[str, Tensor]]) -> Iterator[Tensor]:
    """Logits (B, classes) of the same images without each set."""
    if isinstance(by, Hooked):
        for units in sets:
            by.begin(units)
            yield by.look_at(images).logits
    else:
        yield from _replayed(by, images, sets)


def _replayed(by: Exact, images: Tensor, sets: Sequence[Mapping[str, Tensor]]) -> Iterator[Tensor]:
    stage = by.stage
    values: dict[fx.Node, Any] = {}
    before: Mapping[str, Tensor] = {}
    for units in sets:
        stage.close(units)
        if not values:
            values = stage.run(images)
        else:
            _run_again(stage, values, _layers_that_differ(before, units))
        before = units
        logits = stage.logits(values).clone()  # what is settled stays out of the values that the next set starts from
        by.plain.close(units)
        by.settle(logits, images)
        yield logits


def _run_again(stage: Stage, values: dict[fx.Node, Any], layers: Sequence[str]) -> None:
    """Bring everything that depends on these layers' gates up to date."""
    touched = {node for layer in layers for node in stage.plans[layer].nodes}
    for node in stage.traced.graph.nodes if touched else ():
        if node in touched:
            values[node] = stage.value(node, values)


def _layers_that_differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    none = torch.empty(0, dtype=torch.int64)
    return [name for name in {**one, **other} if not torch.equal(one.get(name, none), other.get(name, none))]
