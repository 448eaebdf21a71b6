"""How well a network classifies, and what it says of every test image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import confusion_matrix, roc_auc_score
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Array, Record
from prunescope.data.split import Split
from prunescope.engine.sweep import Needs, Pass, require_finite
from prunescope.probes.base import Probe, Subject, probes

#: {metric: (title, unit, whether more is better; None when neither)}
FACTS: dict[str, tuple[str, str, bool | None]] = {
    "top1": ("Accuracy", "share of test images", True),
    "top5": ("Accuracy, right class among the first five", "share of test images", True),
    "balanced_accuracy": ("Balanced accuracy", "mean recall of the classes", True),
    "auroc": ("AUROC", "area", True),
    "ece": ("Calibration error", "probability", False),
    "loss": ("Cross entropy", "nats", False),
    "n": ("Test images", "images", None),
}

_HALF = 65504.0  # the largest float16


@probes.register("performance")
@dataclass(frozen=True)
class Performance(Probe):
    """Accuracy (top 1, top 5, balanced), AUROC, calibration, recall per class, and the predictions themselves.

    `top5` is NaN with five classes or fewer, where it says nothing. Classes without test images have recall NaN, are
    named in `info`, and are left out of the means over classes. `image.logits` are float16, clipped to its range.

    Attributes:
        bins: of the expected calibration error (Guo et al. 2017), equally wide.
    """

    bins: int = 15

    distances: ClassVar[Mapping[str, str]] = {"image.predicted": "labels"}
    summary: ClassVar[str] = "accuracy, AUROC, calibration, recall per class, predictions"

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise PrunescopeError(f"performance: bins must be at least 1, got {self.bins}")

    def start(self, subject: Subject) -> _Gatherer:
        return _Gatherer(subject.data.test, self.bins)


class _Gatherer:
    needs = Needs()

    def __init__(self, test: Split, bins: int) -> None:
        self._test = test
        self._bins = bins
        self._logits: list[Tensor] = []

    def update(self, batch: Pass) -> None:
        classes, shape = len(self._test.classes), tuple(batch.logits.shape)
        if shape[1:] != (classes,):
            raise PrunescopeError(f"the network gives outputs of shape {shape}, but the data has {classes} classes")
        require_finite(batch.logits, batch.index, self._test)
        self._logits.append(batch.logits.cpu())

    def finish(self) -> Record:
        logits, labels = torch.cat(self._logits), self._test.labels
        classes = len(self._test.classes)
        predicted, probability = logits.argmax(1), logits.double().softmax(1)
        confusion = confusion_matrix(labels, predicted, labels=range(classes))
        counts = confusion.sum(axis=1)
        recall = np.where(counts > 0, confusion.diagonal() / np.maximum(counts, 1), np.nan)
        top5 = logits.topk(5, dim=1).indices if classes > 5 else None  # with five classes everything is among them
        metrics = {
            "top1": float((predicted == labels).double().mean()),
            "top5": float("nan") if top5 is None else float((top5 == labels[:, None]).any(1).double().mean()),
            "balanced_accuracy": float(np.nanmean(recall)),
            "auroc": _auroc(probability.numpy(), labels.numpy(), counts > 0),
            "ece": _calibration_error(probability.amax(1), predicted == labels, self._bins),
            "loss": float(F.cross_entropy(logits.double(), labels)),
            "n": float(len(labels)),
        }
        arrays: dict[str, Array] = {
            "image.predicted": predicted.to(torch.int32).numpy(),
            "image.label": labels.to(torch.int32).numpy(),
            "image.confidence": probability.amax(1).float().numpy(),
            "image.logits": logits.clamp(-_HALF, _HALF).half().numpy(),
            "class.recall": recall,
            "class.confusion": confusion,
        }
        empty = [name for name, n in zip(self._test.classes, counts.tolist(), strict=True) if not n]
        info = {"classes": list(self._test.classes), "classes_without_images": empty}
        return Record("performance", metrics, arrays, self._test.ids, info)


def _auroc(probability: Array, labels: Array, present: Array) -> float:
    """Binary: of class 1. Else one-versus-rest, averaged over the classes that have images. NaN with one class."""
    if present.sum() < 2:
        return float("nan")
    if probability.shape[1] == 2:
        return float(roc_auc_score(labels, probability[:, 1]))
    return float(np.mean([roc_auc_score(labels == k, probability[:, k]) for k in np.flatnonzero(present)]))


def _calibration_error(confidence: Tensor, right: Tensor, bins: int) -> float:
    """Expected calibration error (Guo et al. 2017): |accuracy - confidence| per bin, weighted by the images in it."""
    bin_of = (confidence * bins).ceil().long().clamp(1, bins) - 1
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_of, right.double() - confidence)
    return float(gap.abs().sum()) / len(confidence)
