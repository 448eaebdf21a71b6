"""What CAR says of whole layers: the arrays that drift compares between networks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.stats import rankdata
from torch import nn

from prunescope.core.types import Array
from prunescope.metrics.ablation import Reductions
from prunescope.metrics.unit_scores import padded
from prunescope.models.layers import CONVOLUTIONS

#: Drops that lie no further apart are equal: computed in other batches, they differ in their last digits.
_ROUNDING = 1e-6


def dead_units(model: nn.Module, layers: Mapping[str, Array]) -> Array:
    """Bool (U,): units that were pruned away, all of whose own weights are zero.

    Args:
        layers: {layer: its channels}, in the order of the rows. Attention heads are taken for alive.
    """
    found = []
    for name, channels in layers.items():
        module = model.get_submodule(name)
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            found.append(~module.weight.detach().flatten(1).any(1).cpu().numpy()[channels])
        else:
            found.append(np.zeros(len(channels), dtype=np.bool_))
    return np.concatenate(found)


def layer_arrays(found: Reductions, layers: Mapping[str, Array], dead: Array, flipped: Array) -> dict[str, Array]:
    """What the record says of L layers; dead units are apart.

    Args:
        dead: bool (U,).
        flipped: bool (U, images): the decision is another without the unit.

    Returns:
        `layer.car` (L, widest) CAR of each living unit, NaN elsewhere; `layer.place` the same of its place in the
        layer's order by CAR, least important 0 (ties go by the drop in log-probability; what is equal in both shares
        the mean of its places, so that no order is made up where there is none); `layer.harm`
        (L,) share of all decisions that turn wrong, over all units; `layer.classes` (L, C) class CAR summed over units;
        `image.flipped` bool (images, L) whether the decision hangs on any unit of the layer.
    """
    rows = _rows(layers)
    losses, net = found.losses.sum(axis=1), found.losses - found.gains
    level = np.where(dead, np.nan, _levels(net.sum(axis=1), found.mean_drop))
    places = [rankdata(level[part], nan_policy="omit") - 1 for part in rows]
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN where nothing is harmed, or a class has no image
        harm = np.array([losses[part].sum() for part in rows]) / losses.sum()
        classes = np.stack([net[part].sum(axis=0) for part in rows]) / found.counts
    return {
        "layer.car": padded([np.where(dead, np.nan, found.car)[part] for part in rows]),
        "layer.place": padded(places), "layer.harm": harm, "layer.classes": classes,
        "image.flipped": np.stack([flipped[part].any(axis=0) for part in rows], axis=1),
    }  # fmt: skip


def _rows(layers: Mapping[str, Array]) -> list[slice]:
    ends = np.cumsum([len(channels) for channels in layers.values()])
    return [slice(int(end) - len(channels), int(end)) for channels, end in zip(layers.values(), ends, strict=True)]


def _levels(net: Array, drop: Array) -> Array:
    """Rising with CAR, then with the drop; the same for units that are equal in both."""
    first = np.lexsort((drop, net))
    apart = (np.diff(net[first]) != 0) | (np.diff(drop[first]) > _ROUNDING)
    found = np.empty(len(net))
    found[first] = np.cumsum(np.r_[0, apart][: len(net)])
    return found
