"""Concept activation vectors: directions in a network's feature space along which a concept is present."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from prunescope.probes.concepts.svm import Svm, Table, linear_svm

#: A stronger regularisation is preferred while it costs no more than this of the mean AUROC.
_TOLERANCE = 0.005


@dataclass(frozen=True, eq=False)
class Scaling:
    """Standardisation fitted on the training embeddings; features that are constant there become 0."""

    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Scaling:
        """Mean and 1 / standard deviation of every column of (N, D)."""
        x = x.double()
        mean, std = x.mean(0), x.std(0, correction=0)
        varies = std > 1e-6 * mean.abs().clamp_min(1e-6)
        return cls(mean, torch.where(varies, 1 / std.clamp_min(1e-300), 0.0))

    def __call__(self, x: Tensor) -> Tensor:
        """Standardised embeddings, float64."""
        return (x.double() - self.mean) * self.factor


@dataclass(frozen=True, eq=False)
class Cavs:
    """Vectors of K concepts, on standardised embeddings.

    Attributes:
        svm: weights (K, D) and intercepts (K,); zero for a concept without positives or without negatives.
        c: the regularisation that was chosen, as in `LinearSVC`.
        positives, negatives: labelled images that each was fitted on, (K,).
        auroc: on the held-out images, (K,); NaN where they lack positives or negatives.
        held_positives, held_negatives: labelled images behind `auroc`, (K,).
    """

    svm: Svm
    c: float
    positives: Tensor
    negatives: Tensor
    auroc: Tensor
    held_positives: Tensor
    held_negatives: Tensor

    def distances(self, x: Tensor) -> Tensor:
        """Signed distances (N, K) of standardised embeddings to the hyperplanes; NaN for concepts without a vector."""
        norm = self.svm.weights.norm(dim=1)
        unknown = torch.where(norm > 0, 1.0, torch.nan)
        return (x @ self.svm.weights.T + self.svm.intercepts) / norm.clamp_min(1e-300) * unknown

    def good(self, min_auroc: float, min_examples: int) -> Tensor:
        """The quality gate, bool (K,): enough examples of both kinds (held out: a quarter as many), AUROC reached."""
        fitted = torch.minimum(self.positives, self.negatives) >= min_examples
        held = torch.minimum(self.held_positives, self.held_negatives) >= max(1, min_examples // 4)
        return fitted & held & (self.auroc >= min_auroc)


def fit_cavs(
    fit: tuple[Tensor | Table, Tensor], held: tuple[Tensor, Tensor], *, grid: Sequence[float] = (0.001, 0.01, 0.1)
) -> Cavs:
    """Vectors of all concepts; one regularisation for all of them.

    Args:
        fit: standardised embeddings (N, D), or their `Table`, and labels (N, K) in {1, 0, -1 unknown}.
        held: the same of other images, on which the AUROC is measured and the regularisation chosen: the strongest
            whose mean AUROC over concepts is within 0.005 of the best.
        grid: values of `C` (see `svm`) to choose from.
    """
    table, labels = fit[0] if isinstance(fit[0], Table) else Table.of(fit[0]), fit[1]
    tried: list[Cavs] = []
    start: Svm | None = None
    for c in sorted(grid):
        start = linear_svm(table, labels, c=c, start=start)
        found = Cavs(start, c, *_counts(labels), torch.empty(0), *_counts(held[1]))
        tried.append(replace(found, auroc=auroc(found.distances(held[0]), held[1])))
    means = torch.stack([cavs.auroc.nanmean() for cavs in tried]).nan_to_num(0.0)
    first = int((means >= means.max() - _TOLERANCE).nonzero()[0])
    return tried[first]


def auroc(scores: Tensor, labels: Tensor) -> Tensor:
    """Area under the ROC curve of every column, (N, K) twice -> (K,); labels 1, 0, and -1 (left out).

    Ties count half. NaN where a column has no positives, no negatives or a NaN score.

    >>> auroc(torch.tensor([[0.1], [0.4], [0.3], [9.0]]), torch.tensor([[0], [1], [1], [-1]])).item()
    1.0
    """
    known = labels >= 0
    # Unknown ones rank behind all others, where they disturb nobody's rank.
    placed = torch.where(known, scores.double(), torch.inf)
    ranks = torch.from_numpy(np.asarray(rankdata(placed.numpy(), axis=0)))
    positive = labels == 1
    p, n = positive.sum(0).double(), (labels == 0).sum(0).double()
    area = (torch.where(positive, ranks, 0.0).sum(0) - p * (p + 1) / 2) / (p * n)
    lost = (known & scores.isnan()).any(0)
    return torch.where(lost | (p == 0) | (n == 0), torch.nan, area)


def _counts(labels: Tensor) -> tuple[Tensor, Tensor]:
    return (labels == 1).sum(0), (labels == 0).sum(0)
