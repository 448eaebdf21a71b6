"""Whether an order of removal takes what was there twice: how many kinds of filters it leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from prunescope.core.types import Array
from prunescope.data.split import Split
from prunescope.engine.correlations import channel_correlations
from prunescope.metrics import redundancy
from prunescope.metrics.redundancy import ALIKE, clusters, redundancy_when_removed


@dataclass(frozen=True, eq=False)
class Diversity:
    """One layer along an order of removal.

    Attributes:
        order: its channels that go (n,), first first.
        clusters: kind of each channel (C,); -1 for those that never vary.
        kept: share of the kinds of which a channel is left, after 0, 1, ... n removals (n + 1,), 1 to 0.
        redundancy: largest correlation of each removed channel with one that survives it (n,), -1 to 1; NaN: none.
    """

    order: Array
    clusters: Array
    kept: Array
    redundancy: Array


def diversity(
    model: nn.Module,
    split: Split,
    order: Sequence[tuple[str, int]],
    *,
    maps: Mapping[str, str] | None = None,
    threshold: float = ALIKE,
    device: torch.device | str = "cpu",
) -> dict[str, Diversity]:
    """{layer: what it loses along an order of removal}. Kinds are clusters of channels of the whole network whose
    maps correlate by `threshold` on average, over all images and places.

    Args:
        order: removals (layer, channel), of one layer or of several.
        maps: {layer: module whose output is taken for it}, such as the ReLU behind it; it must have the layer's
            channels. A layer that is not there stands for itself: its maps before norm and activation.

    Raises:
        PrunescopeError: an unknown module, a channel that is not there, or goes twice, or a layer that never varies.
    """
    layers = list(dict.fromkeys(layer for layer, _ in order))
    places = {layer: (maps or {}).get(layer, layer) for layer in layers}
    tables = channel_correlations(model, split, list(dict.fromkeys(places.values())), device=device)
    found = {}
    for layer in layers:
        own = np.array([channel for name, channel in order if name == layer])
        table = tables[places[layer]]
        kinds = clusters(table, threshold)
        kept, alike = redundancy.diversity_kept(kinds, own), redundancy_when_removed(table, own)
        found[layer] = Diversity(own, kinds, kept, alike)
    return found
