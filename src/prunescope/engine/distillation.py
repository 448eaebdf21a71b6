"""Knowledge distillation: the network also learns what another one answers."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.engine.sweep import logits_of


@dataclass(frozen=True)
class Distillation:
    """(1 - weight) x loss + weight x T^2 x KL(teacher || student), both softmaxes at temperature T.

    Hinton, Vinyals and Dean 2015: eq. 1 is the softmax at T, section 2 has the weighted sum of both losses and why T^2
    (soft targets' gradients shrink with 1 / T^2).

    Attributes:
        weight: of the teacher's answers, in [0, 1]; 0 is training without a teacher.
        temperature: above 0; the higher, the more the wrong classes' odds count.
    """

    weight: float = 0.5
    temperature: float = 4.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise PrunescopeError(f"weight is the share of the teacher in the loss, in [0, 1], got {self.weight}")
        if not 0 < self.temperature < float("inf"):
            raise PrunescopeError(f"temperature must be above 0 and finite, got {self.temperature}")

    def __call__(self, loss: Tensor, logits: Tensor, soft: Tensor) -> Tensor:
        """The loss that is trained with.

        Args:
            loss: of the labels, a scalar.
            logits: of the student, (B, classes).
            soft: logits of the teacher, (B, classes).
        """
        ours, theirs = (F.log_softmax(x.float() / self.temperature, dim=1) for x in (logits, soft))
        divergence = F.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return (1 - self.weight) * loss + self.weight * self.temperature**2 * divergence


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained network and how it is learned from. `fit` uses a copy of it, in eval mode and without gradients."""

    network: nn.Module
    by: Distillation = Distillation()

    def copy(self, device: torch.device, layout: torch.memory_format) -> Teacher:
        """One of one's own on the device, so that a network may learn from itself as it was."""
        network = copy.deepcopy(self.network).eval().requires_grad_(False)
        return Teacher(network.to(device, memory_format=layout), self.by)  # type: ignore[call-overload]

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Its answers to a batch, (B, classes)."""
        return logits_of(self.network(x))

    def parts(self) -> tuple[object, ...]:
        """All that its answers depend on, for the identity of a training's state."""
        return (self.by, *self.network.state_dict().items())
