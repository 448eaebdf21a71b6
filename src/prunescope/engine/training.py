"""How a network is trained, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Literal

from prunescope.core.errors import PrunescopeError
from prunescope.data.augment import Augmentation
from prunescope.data.split import Split
from prunescope.data.training_batches import steps_per_epoch


@dataclass(frozen=True)
class Training:
    """Optimiser, learning-rate schedule, loss, precision and augmentation of one training.

    Attributes:
        epochs: length of the whole schedule; fractions are allowed.
        lr: the peak learning rate.
        schedule: `cosine` to zero, `step` (x gamma at each milestone), `onecycle` (linear up over 30 %, cosine down,
            as in Smith and Topin 2018) or `constant`.
        milestones: fractions of the whole training at which `step` multiplies by `gamma`.
        warmup_epochs: the rate rises linearly over these first epochs (not for `onecycle`).
        class_weights: `balanced` weighs the loss of class k by n / (classes * n_k).
        precision: `bf16` (automatic mixed precision), `32`, or `auto`: bf16 where the device computes it natively.
    """

    epochs: float = 10
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "step", "onecycle", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    precision: Literal["auto", "32", "bf16"] = "auto"
    channels_last: bool = True
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        problems = [
            f"{name} must {rule}, got {getattr(self, name)}"
            for name, rule, holds in (
                ("epochs", "be above 0", self.epochs > 0),
                ("batch_size", "be at least 1", self.batch_size >= 1),
                ("lr", "be above 0", self.lr > 0),
                ("momentum", "lie in [0, 1)", 0 <= self.momentum < 1),
                ("nesterov", "go with momentum", not self.nesterov or self.momentum > 0),
                ("weight_decay", "be at least 0", self.weight_decay >= 0),
                ("gamma", "lie in (0, 1]", 0 < self.gamma <= 1),
                ("milestones", "lie in (0, 1), rising", _rising(self.milestones)),
                ("warmup_epochs", "lie in [0, epochs)", 0 <= self.warmup_epochs < self.epochs),
                ("label_smoothing", "lie in [0, 1)", 0 <= self.label_smoothing < 1),
            )
            if not holds
        ]
        if problems:
            raise PrunescopeError("; ".join(problems))

    def total_steps(self, split: Split) -> int:
        """Optimiser steps of the whole schedule on `split`, at least 1."""
        return max(1, round(self.epochs * steps_per_epoch(split, self.batch_size)))


def _rising(values: tuple[float, ...]) -> bool:
    return all(0 < v < 1 for v in values) and list(values) == sorted(set(values))


#: Names of the options, for those who merge two trainings.
OPTIONS = tuple(item.name for item in fields(Training))
