"""Masks in a training: zeros that stay zero, and masks that change on the way."""

from __future__ import annotations

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
    """The mask in force in one training, kept on the device of the weights."""

    def __init__(self, model: nn.Module, mask: Mask | None) -> None:
        self.parameters = dict(model.named_parameters())
        if mask is not None:
            mask.apply_(model)  # checks names and shapes
        self.hold(mask)

    def hold(self, mask: Mask | None) -> None:
        """This mask is in force from the next `apply` on."""
        self.mask = mask
        tensors = {} if mask is None else mask
        found = [(self.parameters[name], kept) for name, kept in tensors.items() if not bool(kept.all())]
        #: (parameter, True where pruned), on the device, of tensors of which anything is.
        self.pruned = [(parameter, ~kept.to(parameter.device)) for parameter, kept in found]

    @torch.no_grad()
    def apply(self) -> None:
        """Exact zeros: a product would leave -0.0, and momentum would push a masked gradient's weight off zero."""
        for parameter, pruned in self.pruned:
            parameter.masked_fill_(pruned, 0.0)

    def change(self, mask: Mask, optimizer: torch.optim.Optimizer) -> None:
        """Another mask over the same parameters, from now on and at once.

        Weights that come back are zero, and so is all that the optimiser remembers of them: while they were pruned,
        their gradients went into its momentum nevertheless.
        """
        if self.mask is None or list(self.mask) != list(mask):
            raise PrunescopeError("a mask that changes in training must cover the same parameters before and after")
        for name, kept in mask.items():
            back = kept & ~self.mask[name]
            if bool(back.any()):
                _forget(optimizer, self.parameters[name], back)
        self.hold(mask)
        self.apply()


@torch.no_grad()
def _forget(optimizer: torch.optim.Optimizer, parameter: Tensor, where: Tensor) -> None:
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            value.masked_fill_(where.to(value.device), 0.0)
