"""How much of each layer can go before accuracy does, each layer alone and nothing retrained.

As in the study of GoogLeNet (von Rad and Seuffert 2024): every layer is cut alone at one rate after the other; the
largest rate that keeps accuracy becomes its entry in a table, and the table, scaled, says how a cut is shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.data.split import Split
from prunescope.engine.train import accuracy
from prunescope.engine.untouched import untouched
from prunescope.pruning.granularity import Granularity, Weights
from prunescope.pruning.scope import Sensitivity, Table
from prunescope.pruning.scoring import Batches, Criterion

_WEIGHTS = Weights()


@dataclass(frozen=True, eq=False)
class Scan:
    """What a scan found.

    Attributes:
        rates: shares that were cut from each layer alone.
        accuracy: {layer: accuracy at each rate, in [0, 1]}.
        dense: accuracy before any cut.
        tolerance: accuracy that may be lost.
    """

    rates: tuple[float, ...]
    accuracy: Mapping[str, tuple[float, ...]]
    dense: float
    tolerance: float

    def largest(self) -> dict[str, float]:
        """{layer: largest rate up to which accuracy stays within the tolerance; 0.0 when none does}.

        >>> Scan((0.1, 0.5, 0.9), {"a": (0.8, 0.79, 0.2), "b": (0.1, 0.8, 0.8)}, 0.8, 0.02).largest()
        {'a': 0.5, 'b': 0.0}
        """
        found = {}
        for layer, values in self.accuracy.items():
            held = [value >= self.dense - self.tolerance - 1e-9 for value in values]
            count = held.index(False) if False in held else len(held)
            found[layer] = self.rates[count - 1] if count else 0.0
        return found

    def table(self) -> Table:
        """The scope that shares a cut out by these rates.

        Raises:
            PrunescopeError: no layer can lose anything.
        """
        largest = self.largest()
        if not any(largest.values()):
            raise PrunescopeError(
                f"no layer can lose {self.rates[0]:.0%} within a tolerance of {self.tolerance:g} in accuracy: "
                "allow more, or try smaller rates"
            )
        return Table(tuple(largest.items()))


@torch.no_grad()
def scan(
    model: nn.Module,
    mask: Mask,
    by: Criterion,
    split: Split,
    *,
    options: Sensitivity | None = None,
    granularity: Granularity = _WEIGHTS,
    batches: Batches | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_layer: Callable[[int, int], None] | None = None,
) -> Scan:
    """Cut each layer alone at each rate, and look at the accuracy. The model is as it was afterwards.

    Weights are scored once; then one pass over the images a layer and rate.

    Args:
        mask: over what may be cut; what it has pruned stays pruned.
        split: images that accuracy is measured on: validation images, never the test split.
        granularity: fitted, where it must know the network.
        on_layer: called with (layers done, layers in all).
    """
    options = options or Sensitivity()
    images = split.subset(torch.arange(min(options.images, len(split)))) if options.images else split
    with untouched(model):
        mask.apply_(model)
        with untouched(model):  # some criteria change the weights that they score
            scores = by.score(model, granularity.scored(mask), batches=batches, seed=seed)
        dense = accuracy(model, images, device=device)
        cuts = [granularity.layers(granularity.keep(model, scores, mask, 1 - rate, "layer")) for rate in options.rates]
        found: dict[str, tuple[float, ...]] = {}
        for done, layer in enumerate(cuts[0], start=1):
            found[layer] = tuple(_with(model, each[layer], images, device) for each in cuts)
            if on_layer is not None:
                on_layer(done, len(cuts[0]))
    return Scan(options.rates, found, dense, options.tolerance)


def _with(model: nn.Module, part: Mask, images: Split, device: torch.device | str) -> float:
    """Accuracy with a part of the weights cut, which come back."""
    parameters = dict(model.named_parameters())
    saved = {name: parameters[name].detach().clone() for name in part}
    try:
        part.apply_(model)
        return accuracy(model, images, device=device)
    finally:
        for name, value in saved.items():
            parameters[name].copy_(value)
