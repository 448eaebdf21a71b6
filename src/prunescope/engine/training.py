"""How a network is trained, as one frozen value."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal, get_args, get_origin, get_type_hints

from prunescope.core.errors import PrunescopeError, choices
from prunescope.data.augment import Augmentation
from prunescope.data.split import Split
from prunescope.data.training_batches import steps_per_epoch


@dataclass(frozen=True)
class Training:
    """Optimiser, learning-rate schedule, loss, precision and augmentation of one training.

    Attributes:
        epochs: length of the whole schedule; fractions are allowed.
        optimizer: `sgd`, `adam` (weight decay is part of the gradient: L2) or `adamw` (weight decay apart from it).
        lr: the peak learning rate.
        decay_norm_bias: whether weight decay goes to batch norm and biases too, as in the CIFAR recipes of the
            tickets' papers; False spares every parameter of fewer than two dimensions.
        schedule: `cosine` to zero, `step` (x gamma at each milestone), `exponential` (x gamma after every epoch),
            `onecycle` (up over 30 %, then down to nearly zero, both as cosines: PyTorch's reading of Smith and Topin
            2018; momentum stays) or `constant`. A retraining that does not rewind enters it at its start, so that it
            begins anew after every cut.
        milestones: fractions of the whole training at which `step` multiplies by `gamma`.
        gamma: the factor of `step` and `exponential`.
        warmup_epochs: the rate rises linearly over these first epochs (not for `onecycle`).
        class_weights: `balanced` weighs the loss of class k by n / (classes * n_k).
        precision: `bf16` (automatic mixed precision), `32`, or `auto`: bf16 where the device computes it natively.
    """

    epochs: float = 10
    batch_size: int = 128
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    decay_norm_bias: bool = True
    schedule: Literal["cosine", "step", "exponential", "onecycle", "constant"] = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    precision: Literal["auto", "32", "bf16"] = "auto"
    channels_last: bool = True
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            allowed = get_args(hint)
            if get_origin(hint) is Literal and getattr(self, name) not in allowed:
                raise choices(name, getattr(self, name), allowed)
        problems = [
            f"{name} must {rule}, got {getattr(self, name)}"
            for name, rule, holds in (
                ("epochs", "be above 0 and finite", 0 < self.epochs < math.inf),
                ("batch_size", "be at least 1", self.batch_size >= 1),
                ("lr", "be above 0 and finite", 0 < self.lr < math.inf),
                ("momentum", "lie in [0, 1)", 0 <= self.momentum < 1),
                ("nesterov", "go with momentum", not self.nesterov or self.momentum > 0),
                ("weight_decay", "be at least 0 and finite", 0 <= self.weight_decay < math.inf),
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
