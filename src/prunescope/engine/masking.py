"""Masks in a training: zeros that stay zero, and masks that change on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask


@dataclass(frozen=True, eq=False)
class StepState:
    """What `on_step` functions see after each optimiser step, masks applied. `step` steps are done.

    Parameters still have the gradients that the step was taken with, those of pruned weights included.
    """

    step: int
    epoch: int
    loss: Tensor
    model: nn.Module
    optimizer: torch.optim.Optimizer


class Sparsifier(Protocol):
    """Changes the mask while a network trains.

    Attributes:
        mask: in force now; the first one when training begins, the last one when it has ended. Going on from a stored
            state, `fit` sets it: what comes next must follow from it, the step and the network alone.
        identity: what it is, in words: equal for sparsifiers that do the same, and for no others.
    """

    mask: Mask
    identity: str

    def update(self, state: StepState) -> bool:
        """Called after every step, pruned weights being zero: put the next mask into `mask`, and say if it changed."""


class Masking:
    """The mask in force in one training, fixed or a sparsifier's, on the device of the weights."""

    def __init__(self, model: nn.Module, mask: Mask | Sparsifier | None) -> None:
        self.parameters = dict(model.named_parameters())
        self.sparsifier: Sparsifier | None = None
        if mask is None or isinstance(mask, Mask):
            self.mask = mask or Mask({})
        else:
            self.sparsifier, self.mask = mask, mask.mask
        self.mask.apply_(model)  # checks names and shapes
        self._place()

    @torch.no_grad()
    def apply(self) -> None:
        """Exact zeros: a product would leave -0.0, and momentum would push a masked gradient's weight off zero."""
        for parameter, pruned in self.pruned:
            parameter.masked_fill_(pruned, 0.0)

    def follow(self, state: StepState) -> None:
        """After a step: where the sparsifier has another mask, it is in force at once.

        Weights that come back are zero, and so is all that the optimiser remembers of them: while they were pruned,
        their gradients went into its momentum nevertheless.
        """
        if self.sparsifier is None or not self.sparsifier.update(state):
            return
        before, self.mask = self.mask, self.sparsifier.mask
        if list(self.mask) != list(before):
            raise PrunescopeError("a mask that changes in training must cover the same parameters before and after")
        for name, kept in self.mask.items():
            back = kept & ~before[name]
            if bool(back.any()):
                _forget(state.optimizer, self.parameters[name], back)
        self._place()
        self.apply()

    def parts(self) -> tuple[object, ...]:
        """All that the masks of a training depend on, for the identity of its state."""
        return (*self.mask.items(), *([] if self.sparsifier is None else [self.sparsifier.identity]))

    def state(self) -> dict[str, Tensor]:
        """The mask in force, for a training's state; nothing where it is fixed."""
        return {} if self.sparsifier is None else self.mask.to_tensors()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with the mask that `state` gave; the weights and the optimiser's memory are restored by others."""
        if self.sparsifier is not None:
            self.mask = self.sparsifier.mask = Mask(tensors)
            self._place()

    def _place(self) -> None:
        found = [(self.parameters[name], kept) for name, kept in self.mask.items() if not bool(kept.all())]
        #: (parameter, True where pruned), on the device, of tensors of which anything is.
        self.pruned = [(parameter, ~kept.to(parameter.device)) for parameter, kept in found]


@torch.no_grad()
def _forget(optimizer: torch.optim.Optimizer, parameter: Tensor, where: Tensor) -> None:
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(where.to(value.device), 0.0)
