"""The loss that training minimises: cross entropy, smoothed and weighted as asked, with auxiliary heads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Split
from prunescope.engine.sweep import logits_of
from prunescope.engine.training import Training

#: Weight of each auxiliary head's loss (Szegedy et al. 2015, section 5: 0.3).
AUXILIARY = 0.3


class Objective:
    """(output of the network, labels (B,)) -> (loss, main logits (B, classes)).

    The classes' weights and the mean over a batch are as in `torch.nn.functional.cross_entropy`.
    """

    def __init__(self, split: Split, training: Training, device: torch.device) -> None:
        self.classes = len(split.classes)
        self.smoothing = training.label_smoothing
        self.weights = balanced(split).to(device) if training.class_weights == "balanced" else None

    def __call__(self, output: object, y: Tensor) -> tuple[Tensor, Tensor]:
        logits = logits_of(output)
        if logits.shape[1] < self.classes:
            raise PrunescopeError(f"the network has {logits.shape[1]} outputs, the data {self.classes} classes")
        loss = self._entropy(logits, y)
        for head in auxiliary(output):
            loss = loss + AUXILIARY * self._entropy(head, y)
        return loss, logits

    def _entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), y, weight=self.weights, label_smoothing=self.smoothing)


def auxiliary(output: object) -> list[Tensor]:
    """Logits of the auxiliary heads (GoogLeNet, Inception) in a tuple that a network returns while training.

    What has not the shape of the main logits (features, say) is no head.
    """
    if isinstance(output, Tensor) or not isinstance(output, tuple):
        return []
    main = logits_of(output)
    return [x for x in output if isinstance(x, Tensor) and x is not main and x.shape == main.shape]


def balanced(split: Split) -> Tensor:
    """Weight of each class, n / (classes * n_k); 0 for a class without images (scikit-learn's `balanced`)."""
    counts = torch.bincount(split.labels, minlength=len(split.classes)).float()
    return torch.where(counts > 0, len(split) / (len(split.classes) * counts.clamp_min(1)), 0.0)
