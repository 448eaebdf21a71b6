"""The sparse head of a concept bottleneck (Yuksekgonul et al. 2023): from concept scores to classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from prunescope.probes.concepts.elastic_net import ElasticNet

#: Penalties on the path, from one that just leaves no weight to 0.3 % of it, evenly spaced in the logarithm.
STEPS = 14


@dataclass(frozen=True, eq=False)
class Head:
    """A linear head, and the path on which it was found.

    Attributes:
        weights: (C, K) float64, with exact zeros.  bias: (C,), mean 0.
        penalty: the chosen one of `penalties` (L,), which fall.
        nonzeros: weights that are not zero, (L,).  accuracy: on the validation split, (L,).
    """

    weights: Tensor
    bias: Tensor
    penalty: float
    penalties: Tensor
    nonzeros: Tensor
    accuracy: Tensor

    def logits(self, scores: Tensor) -> Tensor:
        """(N, K) -> (N, C)."""
        return scores @ self.weights.T + self.bias


def fit_head(problem: ElasticNet, val: tuple[Tensor, Tensor], *, steps: int = STEPS, balanced: bool = False) -> Head:
    """Fit the whole path, and choose on `val` (scores, labels) the largest penalty within one standard error of the
    best accuracy (Breiman et al. 1984; Hastie, Tibshirani & Friedman 2009, section 7.10).

    Args:
        balanced: choose by the mean recall of classes instead, so that a frequent class cannot make an empty head
            look good enough.
    """
    penalties = max(1.0001 * problem.largest(), 1e-9) * torch.logspace(0, -2.5, steps, dtype=torch.float64)
    now, path = problem.empty(), []
    for lam in penalties.tolist():
        now = problem.solve(lam, now, tolerance=max(1e-5, 1e-3 * lam))
        path.append(now[0])
    right = torch.stack([_right(w, val) for w in path])
    chosen = one_standard_error(right, val[1] if balanced else torch.zeros_like(val[1]))
    exact = problem.solve(float(penalties[chosen]), path[chosen][None], tolerance=1e-8)[0]
    return Head(
        weights=exact[:-1].T.contiguous(),
        bias=exact[-1],
        penalty=float(penalties[chosen]),
        penalties=penalties,
        nonzeros=torch.stack([(w[:-1] != 0).sum() for w in path]),
        accuracy=right.mean(dim=1),
    )


def one_standard_error(right: Tensor, group: Tensor) -> int:
    """First row whose mean accuracy over groups is within a (binomial) standard error of the best.

    Args:
        right: (L, N), 1 where the model gets the sample right, else 0.
        group: of every sample, (N,); all the same for plain accuracy, the classes for balanced accuracy.

    >>> one_standard_error(torch.tensor([[1.0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]]), torch.zeros(4))
    2
    """
    _, member = group.unique(return_inverse=True)
    share = torch.nn.functional.one_hot(member).double()
    size = share.sum(dim=0)
    recall = right.double() @ share / size
    mean = recall.mean(dim=1)
    best = int(mean.argmax())
    error = float((recall[best] * (1 - recall[best]) / size).sum().sqrt()) / len(size)
    return int((mean >= mean[best] - error).nonzero()[0])


def bootstrap_weights(problem: ElasticNet, head: Head, counts: Tensor) -> Tensor:
    """Weights (B, C, K) refitted with the head's penalty on B resamples.

    Args:
        counts: (B, N), how often each sample is drawn.
    """
    start = torch.cat([head.weights.T, head.bias[None]])[None].repeat(len(counts), 1, 1)
    weights = counts.double() / counts.sum(dim=1, keepdim=True)
    return problem.solve(head.penalty, start, weights, tolerance=1e-4, steps=20)[:, :-1].transpose(1, 2)


def top(contributions: Tensor, count: int) -> Tensor:
    """Indices (..., count) of the largest contributions (..., K); -1 where fewer are above zero.

    >>> top(torch.tensor([0.0, 2.0, 3.0, -1.0]), 3).tolist()
    [2, 1, -1]
    """
    values, index = contributions.sort(dim=-1, descending=True, stable=True)
    found = torch.where(values > 0, index, -1)[..., :count]
    missing = count - found.shape[-1]
    return torch.nn.functional.pad(found, (0, missing), value=-1)


def top_frequency(chosen: Tensor, replicates: Tensor) -> Tensor:
    """How often each of the top concepts (C, top) is among the top of the replicates (B, C, top), 0 to 1."""
    hit = (replicates[:, :, None, :] == chosen[None, :, :, None]).any(dim=3).double().mean(dim=0)
    return torch.where(chosen >= 0, hit, 0.0)


def _right(w: Tensor, val: tuple[Tensor, Tensor]) -> Tensor:
    predicted = (val[0] @ w[:-1] + w[-1]).argmax(dim=1)
    return (predicted == val[1]).double()
