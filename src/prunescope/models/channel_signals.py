"""Signals: tensors of the shape they have in the network, that hold the label of a channel at each place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunescope.models.live_rules import flat

#: The label of what is no channel that may go.
NOTHING = 0.0


def is_signal(value: object) -> bool:
    """Whether a tensor holds labels."""
    return isinstance(value, Tensor) and getattr(value, "_channel_labels", False)


def signal(labels: Tensor) -> Tensor:
    """Mark a tensor as holding labels."""
    labels._channel_labels = True  # type: ignore[attr-defined]
    return labels


def signals(values: Any) -> list[Tensor]:
    """All signals in nested arguments."""
    return [value for value in flat(values) if is_signal(value)]


def nothing(shape: Any) -> Tensor:
    """A signal without channels that may go."""
    return signal(torch.full((), NOTHING, dtype=torch.float64).expand(tuple(shape)))


def small(x: Tensor) -> Tensor:
    """One index along every axis over which labels were expanded: all others are copies."""
    for axis in range(x.dim()):
        if x.shape[axis] > 1 and x.stride(axis) == 0:
            x = x.narrow(axis, 0, 1)
    return x


def along(x: Tensor, axis: int) -> Tensor | None:
    """Labels along one axis, when they are the same at every place of the others."""
    rows = small(x).movedim(axis, 0).flatten(1)
    first = rows[:, 0]
    return None if bool((rows != first[:, None]).any()) else first.expand(x.shape[axis]).clone()


def spread(labels: Tensor, axis: int, shape: Any) -> Tensor:
    """A signal of this shape with these labels along one axis."""
    view = [1] * len(shape)
    view[axis] = -1
    return signal(labels.view(view).expand(tuple(shape)))


def meta(value: Any) -> Any:
    """Tensors in nested arguments without their content, in the default floating type, to learn shapes."""
    if isinstance(value, (list, tuple)):
        return type(value)(meta(item) for item in value)
    if not isinstance(value, Tensor):
        return value
    return torch.empty(value.shape, device="meta", dtype=torch.float32 if value.is_floating_point() else value.dtype)
