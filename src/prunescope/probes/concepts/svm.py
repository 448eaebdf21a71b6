"""Linear support vector machines for many concepts at once, on one shared table of embeddings.

The problem is that of scikit-learn's `LinearSVC(class_weight="balanced")` for each concept k:

    min over w, b of  (|w|^2 + b^2) / 2 + C * sum_i s_ik max(0, 1 - y_ik (w x_i + b))^2

with s_ik = n / (2 n_class), and 0 where the label is unknown. It is the *squared* hinge with the intercept among the
regularised weights, not the hinge of `SVC`. The objective is strictly convex, so both find the same vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

#: A step must lower the objective by this share of what its slope promises (Armijo).
_ENOUGH = 1e-4
_MAX_NEWTON, _MAX_CG, _MAX_HALVINGS = 100, 200, 30


@dataclass(frozen=True, eq=False)
class Svm:
    """Solutions for K concepts.

    Attributes:
        weights: float64 (K, D).  intercepts: float64 (K,).
        gradient: norm of the gradient at the solution over that at zero, (K,): the certificate. 0 for a concept
            without examples of both kinds, whose weights are 0.
    """

    weights: Tensor
    intercepts: Tensor
    gradient: Tensor


@dataclass(frozen=True, eq=False)
class Table:
    """Embeddings in the basis of their principal axes, where Newton's equations are nearly diagonal.

    Rotating changes neither norms nor margins. With fewer images than dimensions this is the sample space: the
    solution is a combination of the embeddings, so nothing outside their span is lost.

    Attributes:
        rows: float64 (N, r + 1), the last column is 1, for the intercept.
        axes: float64 (D, r).
    """

    rows: Tensor
    axes: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Table:
        """The table of embeddings (N, D)."""
        x = x.double()
        n, dim = x.shape
        if dim <= n:
            values, vectors = torch.linalg.eigh(x.T @ x)
            axes = vectors[:, _kept(values)]
        else:
            values, vectors = torch.linalg.eigh(x @ x.T)
            kept = _kept(values)
            axes = x.T @ (vectors[:, kept] / values[kept].sqrt())
        return cls(torch.cat([x @ axes, torch.ones(n, 1, dtype=torch.float64)], 1), axes)


def _kept(values: Tensor) -> Tensor:
    return values > 1e-12 * values.max().clamp_min(1e-300)


def linear_svm(
    x: Tensor | Table, labels: Tensor, *, c: float = 1.0, start: Svm | None = None, tolerance: float = 1e-6
) -> Svm:
    """Balanced linear SVMs for all concepts, by Newton's method with conjugate gradients.

    Args:
        x: embeddings (N, D), or their `Table` when several fits share them.
        labels: (N, K) in {1, 0, -1 unknown}.
        c: weight of the loss against the penalty.
        start: solution to begin at, for example that of a smaller `c`.
        tolerance: of `Svm.gradient`.

    One product of the whole table with all concepts' vectors per step; no loop over concepts.
    """
    table = x if isinstance(x, Table) else Table.of(x)
    signs = torch.where(labels == 1, 1.0, -1.0).double()
    costs = c * balanced(labels)
    found = torch.zeros(table.rows.shape[1], labels.shape[1], dtype=torch.float64)
    if start is not None:
        found = torch.cat([table.axes.T @ start.weights.T, start.intercepts[None]])
        found[:, ~costs.any(0)] = 0.0
    scale = (2 * table.rows.T @ (costs * signs)).norm(dim=0)
    norms = torch.zeros_like(scale)
    todo, rows32 = torch.arange(labels.shape[1]), table.rows.float()
    for _ in range(_MAX_NEWTON):
        problem = _Problem(table.rows, rows32, signs[:, todo], costs[:, todo])
        point = problem.at(found[:, todo])
        norms[todo] = point.gradient.norm(dim=0) / scale[todo].clamp_min(1e-300)
        norms[scale == 0] = 0.0
        still = norms[todo] > tolerance
        if not still.any():
            break
        todo = todo[still]
        problem, point = problem.part(still), point.part(still)
        found[:, todo] = problem.step(point, norms[todo])
    return Svm((table.axes @ found[:-1]).T.contiguous(), found[-1], norms)


def balanced(labels: Tensor) -> Tensor:
    """Weights (N, K) that give positives and negatives of a concept half of its labelled images' weight each.

    All 0 for a concept that lacks one of the two.
    """
    positive, negative = labels == 1, labels == 0
    p, n = positive.sum(0), negative.sum(0)
    both = ((p > 0) & (n > 0)).double()
    known = (p + n).double() * both
    return positive * (known / (2 * p.clamp_min(1))) + negative * (known / (2 * n.clamp_min(1)))


@dataclass(frozen=True, eq=False)
class _Point:
    """Where the search stands: weights, margins, slacks, objective and gradient, one column per concept."""

    weights: Tensor
    margins: Tensor
    slack: Tensor
    objective: Tensor
    gradient: Tensor

    def part(self, columns: Tensor) -> _Point:
        values = (self.weights, self.margins, self.slack, self.gradient)
        w, m, s, g = (value[:, columns] for value in values)
        return _Point(w, m, s, self.objective[columns], g)


@dataclass(frozen=True, eq=False)
class _Problem:
    rows: Tensor
    rows32: Tensor
    signs: Tensor
    costs: Tensor

    def part(self, columns: Tensor) -> _Problem:
        return _Problem(self.rows, self.rows32, self.signs[:, columns], self.costs[:, columns])

    def at(self, weights: Tensor) -> _Point:
        margins = self.rows @ weights
        slack = self._slack(margins)
        gradient = weights - 2 * self.rows.T @ (self.costs * self.signs * slack)
        return _Point(weights, margins, slack, self._objective(weights, slack), gradient)

    def step(self, point: _Point, relative: Tensor) -> Tensor:
        """The weights after one Newton step with a backtracking line search per concept."""
        direction = self._newton(point, relative)
        change = self.rows @ direction
        slope = (point.gradient * direction).sum(0)
        length = torch.ones_like(slope)
        for _ in range(_MAX_HALVINGS):
            weights = point.weights + length * direction
            objective = self._objective(weights, self._slack(point.margins + length * change))
            short = objective > point.objective + _ENOUGH * length * slope
            if not short.any():
                break
            length = torch.where(short, length / 2, length)
        return point.weights + length * direction

    def _newton(self, point: _Point, relative: Tensor) -> Tensor:
        """Solves H d = -g by conjugate gradients with H's diagonal, the tighter the nearer the solution.

        In single precision: a direction need not be exact, the gradient that certifies the solution is.
        """
        active = (2 * self.costs * (point.slack > 0)).float()
        diagonal = 1 + self.rows32.square().T @ active
        size = point.gradient.norm(dim=0).clamp_min(1e-300)
        residual = -(point.gradient / size).float()
        direction = torch.zeros_like(residual)
        goal = relative.sqrt().clamp(1e-3, 0.1)
        scaled = residual / diagonal
        search, power = scaled, (residual * scaled).sum(0)
        for _ in range(_MAX_CG):
            if (residual.norm(dim=0) <= goal).all():
                break
            curved = search + self.rows32.T @ (active * (self.rows32 @ search))
            length = power / (search * curved).sum(0).clamp_min(1e-30)
            direction = direction + length * search
            residual = residual - length * curved
            scaled = residual / diagonal
            before, power = power, (residual * scaled).sum(0)
            search = scaled + power / before.clamp_min(1e-30) * search
        return direction.double() * size

    def _slack(self, margins: Tensor) -> Tensor:
        return (1 - self.signs * margins).clamp_min(0)

    def _objective(self, weights: Tensor, slack: Tensor) -> Tensor:
        return weights.square().sum(0) / 2 + (self.costs * slack.square()).sum(0)
