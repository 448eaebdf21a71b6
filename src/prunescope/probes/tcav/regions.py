"""Concept activation regions of one layer (Crabbe and van der Schaar 2022): where in its space a concept is present."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor

from prunescope.core.types import Array
from prunescope.probes.concepts.cav import auroc, fit_cavs


@dataclass(frozen=True, eq=False)
class Space:
    """One centre and one scale for all dimensions: the mean squared distance between two examples is 1."""

    centre: Tensor
    factor: float

    @classmethod
    def of(cls, x: Tensor) -> Space:
        """The space of examples (N, D)."""
        x = x.double()
        centre = x.mean(0)
        spread = float((2 * (x - centre).square().sum(1).mean()).sqrt())
        return cls(centre, 1 / spread if spread > 1e-12 * max(float(centre.norm()), 1e-12) else 0.0)

    def __call__(self, x: Tensor) -> Tensor:
        return (x.double() - self.centre) * self.factor


@dataclass(frozen=True, eq=False)
class Regions:
    """Of K concepts; a concept without examples of both kinds has none, and its dual weights are 0.

    Attributes:
        support: examples (N, D) in their space.  dual: (N, K).  intercepts: (K,).
        gamma: of the kernel exp(-gamma |x - y|^2), in units of the mean squared distance between examples.
    """

    support: Tensor
    dual: Tensor
    intercepts: Tensor
    gamma: float

    def decisions(self, z: Tensor, *, table: Tensor | None = None) -> Tensor:
        """(B, K): above 0 within a concept's region. All concepts by one kernel matrix (`table`, where it is known);
        NaN without a region."""
        table = kernel(z, self.support, self.gamma) if table is None else table
        found = table @ self.dual + self.intercepts
        return found.where((self.dual != 0).any(0), torch.nan)


def kernel(x: Tensor, y: Tensor, gamma: float) -> Tensor:
    """Gaussian kernel (N, M)."""
    return (-gamma * torch.cdist(x, y).square()).exp()


def fit_regions(z: Tensor, labels: Tensor, gamma: float, c: float, *, table: Tensor | None = None) -> Regions:
    """Balanced kernel SVMs (scikit-learn's), one per concept, on one kernel matrix (`table`).

    Args:
        labels: (N, K) in {1, 0, -1 not for this concept}.
    """
    table = kernel(z, z, gamma) if table is None else table
    dual, intercepts = np.zeros(labels.shape), np.zeros(labels.shape[1])
    matrix: Array = table.numpy()
    for k, column in enumerate(labels.T.numpy()):
        rows = np.flatnonzero(column >= 0)
        if len(np.unique(column[rows])) < 2:
            continue
        machine = SVC(C=c, kernel="precomputed", class_weight="balanced", random_state=0).fit(
            matrix[np.ix_(rows, rows)], column[rows]
        )
        dual[rows[machine.support_], k], intercepts[k] = machine.dual_coef_[0], machine.intercept_[0]
    return Regions(z, torch.from_numpy(dual), torch.from_numpy(intercepts), gamma)


@dataclass(frozen=True, eq=False)
class Judged:
    """The regions that were chosen, and how well they hold on other images, all (K,), NaN where it cannot be told.

    Attributes:
        accuracy: mean of the recalls of positives and negatives.  auroc: of the decision.
        linear_accuracy: of linear vectors on the same examples.
        p: chance that the best of all concepts would be as accurate with labels shuffled among the images.
    """

    regions: Regions
    c: float
    accuracy: Tensor
    auroc: Tensor
    linear_accuracy: Tensor
    p: Tensor


def judged_regions(
    fit: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor], *,
    gammas: Sequence[float], grid: Sequence[float], shuffles: int, generator: torch.Generator,
) -> Judged:  # fmt: skip
    """Fit, and test on images that chose nothing: not even the regions' width and regularisation (`best_kernel`).

    The test shuffles the labels of both, refits, and takes the best concept of every shuffle (Westfall and Young 1993):
    p already counts that there are many concepts, and is at least 1 / (shuffles + 1). With labels shuffled among the
    examples alone, fits to noise split images by whatever varies most, and would be right by luck about the true ones.

    Args:
        fit, held: examples in their space, and labels in {1, 0, -1 left out}.
    """
    z, labels = fit
    gamma, c = best_kernel(z, labels, gammas, grid, generator)
    table = kernel(z, z, gamma)
    regions = fit_regions(z, labels, gamma, c, table=table)
    accuracy = balanced_accuracy(regions.decisions(held[0]), held[1])
    chance = []
    for _ in range(shuffles):
        asked, other = (shuffled_labels(known, generator) for known in (labels, held[1]))
        shuffled = fit_regions(z, asked, gamma, c, table=table)
        chance.append(balanced_accuracy(shuffled.decisions(held[0]), other).nan_to_num(-1.0).max())
    beaten = torch.stack(chance)[:, None] >= accuracy if shuffles else torch.zeros(0, len(accuracy))
    p = ((1 + beaten.sum(0)) / (1 + shuffles)).double().where(accuracy.isfinite() & (shuffles > 0), torch.nan)
    linear = fit_cavs(fit, held)
    return Judged(
        regions, c, accuracy, auroc(regions.decisions(held[0]), held[1]),
        balanced_accuracy(linear.distances(held[0]), held[1]), p,
    )  # fmt: skip


def best_kernel(
    z: Tensor, labels: Tensor, gammas: Sequence[float], grid: Sequence[float], generator: torch.Generator
) -> tuple[float, float]:
    """The width and C, one of each for all concepts, with the best mean AUROC when one half of the examples judges what
    was fitted to the other; of equal ones the smallest."""
    half = torch.rand(len(z), generator=generator).argsort() % 2
    first, second = (torch.where(half[:, None] == side, labels, -1) for side in (0, 1))
    found: dict[tuple[float, float], float] = {}
    for gamma in sorted(gammas):
        table = kernel(z, z, gamma)
        for c in sorted(grid):
            judged = [
                auroc(fit_regions(z, fit, gamma, c, table=table).decisions(z, table=table), other)
                for fit, other in ((first, second), (second, first))
            ]
            found[gamma, c] = float(torch.cat(judged).nanmean().nan_to_num(0.0))
    return max(found, key=lambda pair: found[pair])  # the first of equal ones


def shuffled_labels(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Every column's labels dealt to others of its own examples."""
    key = torch.rand(labels.shape, generator=generator)
    from_, to = (
        torch.where(labels >= 0, k, 2.0).argsort(0) for k in (torch.rand(labels.shape, generator=generator), key)
    )
    return torch.empty_like(labels).scatter_(0, to, labels.gather(0, from_))


def balanced_accuracy(decisions: Tensor, labels: Tensor) -> Tensor:
    """Mean of the recalls of positives and negatives (K,); NaN without either, or without decisions."""
    inside = (decisions > 0).double()
    recalls = [
        torch.where(labels == value, right, 0.0).sum(0) / (labels == value).sum(0)
        for value, right in ((1, inside), (0, 1 - inside))
    ]
    return ((recalls[0] + recalls[1]) / 2).where(~decisions.isnan().any(0), torch.nan)
