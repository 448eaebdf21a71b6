"""Impossible trainings are refused where they are written down, and the length of possible ones."""

from __future__ import annotations

from dataclasses import fields
from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Split
from prunescope.engine.training import Training


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": 0}, "epochs must be above 0 and finite, got 0"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov"),
        ({"milestones": (0.7, 0.3)}, "rising"),
        ({"warmup_epochs": 10.0, "epochs": 5.0}, "warmup_epochs"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"epochs": inf}, "epochs must be above 0 and finite, got inf"),
        ({"lr": nan}, "lr must be above 0 and finite, got nan"),
        ({"weight_decay": inf}, "weight_decay"),
        ({"optimizer": "adamww"}, "unknown optimizer 'adamww'; did you mean 'adamw'"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'"),
        ({"class_weights": "ballanced"}, "did you mean 'balanced'"),
        ({"precision": "fp16"}, "unknown precision 'fp16'.*Known: 32, auto, bf16"),
        ({"batch_size": 0, "gamma": 2.0}, "batch_size must be at least 1, got 0; gamma"),
    ],
)
def test_impossible_trainings_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(PrunescopeError, match=expected):
        Training(**options)


@pytest.mark.parametrize(
    ("epochs", "batch_size", "steps"), [(3, 10, 30), (0.5, 10, 5), (2, 30, 6), (0.01, 50, 1), (4, 500, 4)]
)
def test_length(epochs: float, batch_size: int, steps: int) -> None:
    split = Split(torch.zeros(100, 1, 2, 2, dtype=torch.uint8), torch.zeros(100), np.arange(100).astype(str), ("a",))
    assert Training(epochs=epochs, batch_size=batch_size).total_steps(split) == steps


def test_a_training_is_a_value() -> None:
    assert Training(lr=0.2) == Training(lr=0.2) != Training(lr=0.3)
    assert len({Training(), Training(), Training(epochs=3)}) == 2
    assert all(field.init for field in fields(Training))
