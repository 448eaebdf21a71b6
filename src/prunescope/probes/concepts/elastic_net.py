"""Multinomial logistic regression with an elastic-net penalty, with exact zeros, for many weightings of the samples.

min over W (K, C) and bias (C) of   sum_i s_i CE(x_i W + bias, y_i) + lam * (l1 |W|_1 + (1 - l1) / 2 |W|^2),

with sum_i s_i = 1 and the bias free. Proximal Newton steps (Lee, Sun & Saunders 2014); each quadratic model is solved
by FISTA with restarts (Beck & Teboulle 2009; O'Donoghue & Candes 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: The Hessian only shapes the steps; it is taken from at most so many samples, the gradient from all.
_HESSIAN_SAMPLES = 4096
#: With more unknowns than this the Hessian's blocks, one per class, stand for it.
_DENSE = 1200
#: Steps before the Hessian is taken anew.
_PATIENCE = 3
_CHUNK = 400_000


@dataclass(frozen=True, eq=False)
class ElasticNet:
    """The data of the problem.

    Attributes:
        x: inputs (N, K), float64, best standardised.
        y: class indices (N,).
        classes: C.
        l1_ratio: share of the penalty that is L1, in (0, 1].
    """

    x: Tensor
    y: Tensor
    classes: int
    l1_ratio: float = 0.99

    def largest(self) -> float:
        """The smallest penalty with which all weights are zero."""
        prior = F.one_hot(self.y, self.classes).double()
        gradient = self.x.T @ (prior.mean(0) - prior) / len(self.x)
        return float(gradient.abs().max()) / self.l1_ratio

    def empty(self, replicates: int = 1) -> Tensor:
        """Coefficients (B, K + 1, C) of a model that knows only how frequent classes are; the last row is the bias."""
        found = torch.zeros(replicates, self.x.shape[1] + 1, self.classes, dtype=torch.float64)
        frequent = torch.bincount(self.y, minlength=self.classes).double().clamp_min(0.5).log()
        found[:, -1] = frequent - frequent.mean()
        return found

    def solve(
        self,
        lam: float,
        start: Tensor,
        weights: Tensor | None = None,
        *,
        tolerance: float = 1e-6,
        steps: int = 100,
    ) -> Tensor:
        """Coefficients (B, K + 1, C) for penalty `lam`, one model per row of sample weights.

        Args:
            start: where to start; its first axis is B.
            weights: (B, N), >= 0, rows sum to 1; None: all samples alike.
            tolerance: on the violation of the optimality conditions, in units of the gradient.
        """
        if weights is None:
            weights = torch.full((len(start), len(self.x)), 1 / len(self.x), dtype=torch.float64)
        x = torch.cat([self.x, self.x.new_ones(len(self.x), 1)], dim=1)
        penalty = _Penalty(lam * self.l1_ratio, lam * (1 - self.l1_ratio))
        now, (loss, gradient) = start.clone(), _loss_gradient(x, self.y, weights, start)
        before, age = 0.0, _PATIENCE
        for _ in range(steps):
            violation = float(penalty.violation(now, gradient).amax())
            if violation <= tolerance:
                break
            if violation > before / 2 and age >= _PATIENCE:  # else the old Hessian still serves
                curvature = _curvature(x, weights.mean(0), now.mean(0))
                age = 0
            before, age = violation, age + 1
            model = _fista(now, gradient, penalty, curvature, tolerance=0.03 * violation)
            now, loss, gradient, moved = _search((x, self.y, weights), (now, loss, gradient), model, penalty)
            if not moved:
                break
        now[:, -1] -= now[:, -1].mean(dim=1, keepdim=True)  # a constant for all classes changes nothing
        return now


@dataclass(frozen=True)
class _Penalty:
    l1: float
    l2: float

    def value(self, w: Tensor) -> Tensor:
        """(B,); the bias is free."""
        inner = w[:, :-1]
        return self.l1 * inner.abs().sum(dim=(1, 2)) + self.l2 / 2 * inner.square().sum(dim=(1, 2))

    def prox(self, w: Tensor, step: Tensor) -> Tensor:
        found = w.sign() * (w.abs() - step * self.l1).clamp_min(0) / (1 + step * self.l2)
        found[:, -1] = w[:, -1]
        return found

    def violation(self, w: Tensor, gradient: Tensor) -> Tensor:
        """Distance of 0 from the subdifferential, per coefficient."""
        smooth = gradient + self.l2 * w
        found = torch.where(w == 0, (smooth.abs() - self.l1).clamp_min(0), (smooth + self.l1 * w.sign()).abs())
        found[:, -1] = gradient[:, -1].abs()
        return found


def _loss_gradient(x: Tensor, y: Tensor, weights: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean cross-entropy (B,) and its gradient, as w; in chunks of samples that stay in the cache."""
    replicates, inputs, classes = w.shape
    flat = w.permute(1, 0, 2).reshape(inputs, -1)
    loss, gradient = torch.zeros(replicates, dtype=w.dtype), torch.zeros_like(flat)
    size = max(1, _CHUNK // (replicates * classes))
    for x_, y_, s in zip(x.split(size), y.split(size), weights.T.split(size), strict=True):
        log_p = (x_ @ flat).view(len(x_), replicates, classes).log_softmax(dim=2)
        target = y_.view(-1, 1, 1).expand(-1, replicates, 1)
        loss -= (s * log_p.gather(2, target)[:, :, 0]).sum(0)
        error = log_p.exp_().scatter_add_(2, target, log_p.new_full(target.shape, -1.0)) * s[:, :, None]
        gradient += x_.T @ error.view(len(x_), -1)
    return loss, gradient.view(inputs, replicates, classes).permute(1, 0, 2)


def _curvature(x: Tensor, s: Tensor, w: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Product with the Hessian at w (K + 1, C), and its largest eigenvalue.

    Of large problems: with an upper bound that does not couple classes, 2 diag(p (1 - p)) for diag(p) - p p^T (their
    difference is diagonally dominant); then there is an eigenvalue per class, (C,).
    """
    inputs, classes = w.shape
    some = slice(None, None, -(-len(x) // _HESSIAN_SAMPLES))
    x, s = x[some], s[some] / s[some].sum()
    p = (x @ w).softmax(dim=1)
    if inputs * classes > _DENSE:
        blocks = _blocks(x, 2 * p * (1 - p) * s[:, None])
        return lambda d: (blocks @ d.permute(2, 1, 0)).permute(2, 1, 0), torch.linalg.eigvalsh(blocks)[:, -1]
    joint = (x[:, :, None] * (p * s.sqrt()[:, None])[:, None, :]).flatten(1)
    hessian = -joint.T @ joint
    view = hessian.view(inputs, classes, inputs, classes)
    view.diagonal(dim1=1, dim2=3).add_(_blocks(x, p * s[:, None]).permute(1, 2, 0))
    return lambda d: (d.flatten(1) @ hessian).view_as(d), torch.linalg.eigvalsh(hessian)[-1]


def _blocks(x: Tensor, p: Tensor) -> Tensor:
    """X^T diag(p_c) X for every column p_c of (N, C), (C, K + 1, K + 1)."""
    found = x.new_zeros(p.shape[1], x.shape[1], x.shape[1])
    size = max(1, 10 * _CHUNK // (p.shape[1] * x.shape[1]))
    for x_, p_ in zip(x.split(size), p.split(size), strict=True):
        found += (p_.T[:, None, :] * x_.T) @ x_
    return found


def _fista(
    now: Tensor,
    gradient: Tensor,
    penalty: _Penalty,
    curvature: tuple[Callable[[Tensor], Tensor], Tensor],
    *,
    tolerance: float,
) -> Tensor:
    """Minimum of the quadratic model around `now` plus the penalty."""
    hessian_times, largest = curvature
    step = 1 / largest.clamp_min(1e-12)
    w = ahead = now
    momentum = torch.ones(len(now), 1, 1, dtype=now.dtype)
    for _ in range(1000):
        after = penalty.prox(ahead - step * (gradient + hessian_times(ahead - now)), step)
        change = after - w
        if float(((after - ahead) / step).abs().amax()) <= tolerance:
            return after
        uphill = ((ahead - after) * change).sum(dim=(1, 2), keepdim=True) > 0
        momentum = torch.where(uphill, 1.0, momentum)
        larger = (1 + (1 + 4 * momentum * momentum).sqrt()) / 2
        ahead = after + torch.where(uphill, 0.0, (momentum - 1) / larger) * change
        w, momentum = after, larger
    return w


def _search(
    data: tuple[Tensor, Tensor, Tensor],
    here: tuple[Tensor, Tensor, Tensor],
    model: Tensor,
    penalty: _Penalty,
) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Go towards the model's minimum, half as far where the objective does not fall as promised."""
    now, loss, gradient = here
    move = model - now
    before = loss + penalty.value(now)
    promised = (gradient * move).sum(dim=(1, 2)) + penalty.value(model) - penalty.value(now)
    length = torch.ones(len(now), dtype=now.dtype)
    for _ in range(30):
        there = torch.where(length[:, None, None] == 1, model, now + length[:, None, None] * move)
        loss, gradient = _loss_gradient(*data, there)
        failed = loss + penalty.value(there) > before + 1e-4 * length * promised + 1e-14
        if not failed.any():
            return there, loss, gradient, True
        length = torch.where(failed, length / 2, length)
    stay = torch.where(failed[:, None, None], now, there)
    return stay, *_loss_gradient(*data, stay), bool((~failed).any())
