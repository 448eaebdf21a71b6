"""Optimisers, and the learning rate as a pure function of the step.

Because nothing remembers where the schedule stands, resuming and rewinding to step k are exact by construction.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from prunescope.engine.training import Training

_RISE = 0.3  # share of a one-cycle schedule in which the rate goes up
_FIRST, _LAST = 1 / 25, 1 / 25e4  # one-cycle's rates at both ends, relative to the peak (PyTorch's defaults)


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """The optimiser over all parameters, in one group, or in two when `decay_norm_bias` is off."""
    groups = _groups(list(model.parameters()), training)
    if training.optimizer != "sgd":
        kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, lr=training.lr, weight_decay=training.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=training.lr,
        momentum=training.momentum,
        nesterov=training.nesterov,
        weight_decay=training.weight_decay,
    )


def _groups(parameters: list[nn.Parameter], training: Training) -> list[dict[str, Any]]:
    if training.decay_norm_bias:
        return [{"params": parameters}]
    decayed = [parameter for parameter in parameters if parameter.ndim >= 2]
    spared = [parameter for parameter in parameters if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def learning_rate(training: Training, step: int, total: int, per_epoch: int) -> float:
    """The rate of optimiser step `step` (0-based) out of `total`.

    >>> learning_rate(Training(lr=0.1, schedule="constant"), 7, 10, 5)
    0.1
    """
    if training.schedule == "onecycle":
        return training.lr * _one_cycle(step, total)
    warmup = round(training.warmup_epochs * per_epoch)
    if step < warmup:
        return training.lr * (step + 1) / (warmup + 1)
    if training.schedule == "cosine":
        return training.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    if training.schedule == "exponential":
        return training.lr * training.gamma ** ((step - warmup) // per_epoch)
    if training.schedule == "step":
        return training.lr * training.gamma ** sum(step >= round(part * total) for part in training.milestones)
    return training.lr


def _one_cycle(step: int, total: int) -> float:
    """Cosine up, then cosine down (torch.optim.lr_scheduler.OneCycleLR with its default, cosine, annealing)."""
    peak = _RISE * total - 1
    if step <= peak:
        return _anneal(_FIRST, 1.0, step / peak if peak > 0 else 1.0)
    return _anneal(1.0, _LAST, (step - peak) / max(1e-9, total - 1 - peak))


def _anneal(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
