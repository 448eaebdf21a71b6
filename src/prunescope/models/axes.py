"""Which axis of a layer's output has the units: maps are (B, C, h, w) in most networks and (B, h, w, C) within some."""

from __future__ import annotations

from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.models.layers import CONVOLUTIONS, NORMS, execution_order

_LEARNED = (*CONVOLUTIONS, *NORMS, nn.Linear)


def last_learned(model: nn.Module, layers: list[str]) -> dict[str, nn.Module | None]:
    """{layer: the last convolution, linear layer or norm that runs in it, or where it has none before it}.

    Args:
        layers: names of modules; what stands behind a colon (`fc:input`) is left off.
    """
    modules, order = dict(model.named_modules()), execution_order(model)
    return {layer: _last(modules, order, layer.partition(":")[0]) for layer in layers}


def units_last(learned: nn.Module | None, shape: tuple[int, ...], layer: str) -> bool:
    """Whether maps of this shape have their units at the last axis, by the layer that wrote them (`last_learned`).

    Convolutions and batch norms write (B, C, h, w); linear layers and layer norms read and write the last axis, and
    what follows may permute it.

    Raises:
        PrunescopeError: both the second and the last axis, or neither, are as long as that layer is wide.
    """
    if not isinstance(learned, (nn.Linear, nn.LayerNorm)):
        return False
    width = learned.out_features if isinstance(learned, nn.Linear) else learned.normalized_shape[-1]
    if (shape[1] == width) == (shape[3] == width):
        raise PrunescopeError(
            f"layer {layer!r} gives {tuple(shape)}, in which units may be the second axis or the last; "
            "name a layer inside it, or behind it"
        )
    return bool(shape[3] == width)


def _last(modules: dict[str, nn.Module], order: list[str], layer: str) -> nn.Module | None:
    inside = [i for i, name in enumerate(order) if name == layer or name.startswith(f"{layer}.")]
    names = list(modules)
    # A module of someone else's (a permutation, say) is no leaf of the trace: it stands where it is defined.
    until = order[: inside[-1] + 1] if inside else names[: names.index(layer) + 1]
    return next((modules[name] for name in reversed(until) if isinstance(modules[name], _LEARNED)), None)
