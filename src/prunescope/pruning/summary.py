"""What a mask did to each layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

from prunescope.core.mask import Mask

#: How a layer can end: without a kept weight, or with kept weights of which none lies on a path through the network.
Collapse = Literal["empty", "cut off"]


def layer_table(mask: Mask) -> list[dict[str, Any]]:
    """One row per pruned tensor, in the mask's order.

    Returns:
        Rows with `layer` (parameter name), `shape`, `total`, `kept`, `density` (kept over total, in [0, 1]), `outputs`
        (output channels or neurons), `dead_outputs` (those without a kept weight: their output is a constant),
        `inputs` (input channels or features, of one group) and `dead_inputs` (those that no kept weight reads).
        One-dimensional tensors (biases, scales) have outputs only: `inputs` and `dead_inputs` are 0.

    >>> import torch
    >>> rows = layer_table(Mask({"fc.weight": torch.tensor([[True, False, True], [False, False, False]])}))
    >>> rows[0]["density"], rows[0]["dead_outputs"], rows[0]["dead_inputs"]
    (0.3333333333333333, 1, 1)
    """
    return [_row(name, kept) for name, kept in mask.items()]


def _row(name: str, kept: Tensor) -> dict[str, Any]:
    count, total = int(kept.sum()), kept.numel()
    outputs = kept.flatten(1).any(1) if kept.ndim > 1 else kept
    inputs = kept.transpose(0, 1).flatten(1).any(1) if kept.ndim > 1 else kept[:0]
    return {
        "layer": name, "shape": tuple(kept.shape), "total": total, "kept": count,
        "density": count / total if total else 1.0,
        "outputs": len(outputs), "dead_outputs": int((~outputs).sum()),
        "inputs": len(inputs), "dead_inputs": int((~inputs).sum()),
    }  # fmt: skip


def collapsed(densities: Mapping[str, float], effective: Mapping[str, float]) -> dict[str, Collapse]:
    """Layers that pass nothing on any more ("layer collapse", Tanaka et al. 2020), and how they ended.

    A network with a path around such a layer (a residual connection) can live on without it.

    Args:
        densities: {layer: share of its weights kept}.
        effective: {layer: share of its weights kept and on a live path} (`models.density`), where it is known.

    >>> collapsed({"a": 0.5, "b": 0.1, "c": 0.0}, {"a": 0.5, "b": 0.0, "c": 0.0})
    {'b': 'cut off', 'c': 'empty'}
    """
    return {
        layer: "cut off" if density else "empty"
        for layer, density in densities.items()
        if not density or effective.get(layer, density) == 0
    }
