"""Effective density: the kept weights that a signal can still pass on its way from the input to an output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.models.layers import evaluating
from prunescope.models.liveness import Liveness


def effective_mask(model: nn.Module, mask: Mask, input_shape: tuple[int, ...]) -> Mask:
    """The kept weights that lie on a live path: their input is reachable from the image, and an output from them.

    The network runs once, in eval mode, on booleans instead of numbers: a unit is alive when any kept weight joins
    it to something alive; the same is then done backwards from the outputs. Weights that the mask does not cover
    count as kept. Biases, positional embeddings and class tokens carry no signal, so a unit with nothing but its
    bias is dead. Batch norm, activations and dropout pass a unit on as it is, pooling and attention pass on any
    live input; a gate (squeeze-and-excitation) never closes. Positions count: of a padded 3x3 kernel on a 1x1 map
    only the middle is alive, so a dense network can have less than 1.

    Args:
        model: unchanged afterwards; its weights do not matter.
        mask: over any of its parameters.
        input_shape: (C, H, W) of one image.

    Raises:
        PrunescopeError: the network does something with its signal that cannot be followed (the operation is named),
            or the mask names parameters that it has not.
    """
    _require_fit(model, mask)
    tracker = Liveness(model, mask)
    image = torch.ones(1, *input_shape, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad(), evaluating(model), tracker:
        outputs = model(image.clone())  # not the leaf itself, on which nothing may work in place
    total = sum(output.sum() for output in _tensors(outputs) if output.requires_grad)
    if isinstance(total, Tensor):
        total.backward()
    return Mask({name: mask[name] & tracker.reached(name) for name in mask})


def effective_density(model: nn.Module, mask: Mask, input_shape: tuple[int, ...]) -> float:
    """Live over prunable weights, in [0, 1]; never more than the nominal `mask.density`. See `effective_mask`.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> mask = Mask({"0.weight": torch.ones(2, 2).bool(), "2.weight": torch.tensor([[True, False]])})
    >>> effective_density(model, mask, (2,)), round(mask.density, 2)  # the second hidden unit leads nowhere
    (0.5, 0.83)
    """
    return effective_mask(model, mask, input_shape).kept / mask.total if mask.total else 1.0


def _require_fit(model: nn.Module, mask: Mask) -> None:
    parameters = dict(model.named_parameters())
    for name, kept in mask.items():
        if name not in parameters or parameters[name].shape != kept.shape:
            got = tuple(parameters[name].shape) if name in parameters else "no such parameter"
            raise PrunescopeError(f"mask of {name!r} has shape {tuple(kept.shape)}, the model has {got}")


def _tensors(outputs: object) -> list[Tensor]:
    """All tensors in what a network returns: a tensor, a (named) tuple or a dictionary."""
    if isinstance(outputs, Tensor):
        return [outputs]
    items = outputs.values() if isinstance(outputs, dict) else outputs if isinstance(outputs, (list, tuple)) else ()
    return [tensor for item in items for tensor in _tensors(item)]
