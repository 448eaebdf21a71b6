"""PCBM-h (Yuksekgonul et al. 2023): what the features know beyond the concepts, added to a frozen bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from prunescope.core.types import Array

#: Strengths of the L2 penalty among which the validation split chooses, strongest first.
GRID = (0.1, 0.01, 0.001)


@dataclass(frozen=True, eq=False)
class Residual:
    """weights (D, C), bias (C,), and the chosen penalty."""

    weights: Tensor
    bias: Tensor
    penalty: float

    def logits(self, z: Tensor) -> Tensor:
        """(N, D) -> (N, C), to be added to the bottleneck's."""
        return z.double() @ self.weights + self.bias


def solve_residual(
    z: Tensor, y: Tensor, offset: Tensor, penalty: float, *, start: Tensor | None = None, tolerance: float = 1e-5
) -> Tensor:
    """Coefficients (D + 1, C), the last row the bias: min of mean CE(offset + z W + bias, y) + penalty / 2 |W|^2.

    Strictly convex, but for a constant in the bias; solved by L-BFGS from `start` (zeros), without randomness.

    Args:
        z: standardised features (N, D).
        y: (N,).
        offset: the frozen bottleneck's logits (N, C).
        tolerance: on the largest entry of the gradient.
    """
    x = torch.cat([z.double(), torch.ones(len(z), 1, dtype=torch.float64)], dim=1)
    shape = (x.shape[1], offset.shape[1])

    def value(flat: Array) -> tuple[float, Array]:
        w = torch.from_numpy(flat).view(shape)
        log_p = (offset + x @ w).log_softmax(dim=1)
        loss = F.nll_loss(log_p, y) + penalty / 2 * w[:-1].square().sum()
        error = log_p.exp_().scatter_add_(1, y[:, None], log_p.new_full((len(y), 1), -1.0))
        gradient = x.T @ error / len(y)
        gradient[:-1] += penalty * w[:-1]
        return float(loss), gradient.flatten().numpy()

    first = np.zeros(shape[0] * shape[1]) if start is None else start.flatten().numpy()
    options = {"maxiter": 500, "gtol": tolerance, "ftol": 1e-12}
    found = minimize(value, first, jac=True, method="L-BFGS-B", options=options)
    return torch.from_numpy(found.x).view(shape)


def fit_residual(
    train: tuple[Tensor, Tensor, Tensor], val: tuple[Tensor, Tensor, Tensor], *, grid: Sequence[float] = GRID
) -> Residual:
    """Fit for every penalty (strongest first) and choose on `val`: best accuracy, of equal ones the strongest.

    Args:
        train, val: features (N, D), labels (N,), the bottleneck's logits (N, C).
    """
    best, right, w = None, -1.0, None
    for penalty in grid:
        w = solve_residual(*train, penalty, start=w, tolerance=1e-4)  # closer changes no prediction
        found = Residual(w[:-1], w[-1], penalty)
        accuracy = float(((val[2] + found.logits(val[0])).argmax(1) == val[1]).double().mean())
        if accuracy > right:
            best, right = found, accuracy
    assert best is not None
    return best
