"""The residual head: the optimum of its convex problem, what it adds, and that nothing about it is random."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from prunescope.core.seeds import torch_generator
from prunescope.probes.concepts.residual import fit_residual, solve_residual


def data(n: int = 300, width: int = 6, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch_generator(seed, "residual")
    z = torch.randn(n, width, generator=generator, dtype=torch.float64)
    truth = torch.randn(width, classes, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, classes, generator=generator, dtype=torch.float64)
    return z, (2 * z @ truth + noise).argmax(1)


def test_without_a_bottleneck_it_is_ridge_logistic_regression() -> None:
    z, y = data()
    ours = solve_residual(z, y, torch.zeros(len(y), 3, dtype=torch.float64), 0.01)
    peer = LogisticRegression(C=1 / (0.01 * len(y)), tol=1e-10, max_iter=5000).fit(z.numpy(), y.numpy())
    np.testing.assert_allclose(ours[:-1].T.numpy(), peer.coef_, atol=2e-4)
    bias = ours[-1] - ours[-1].mean()
    np.testing.assert_allclose(bias.numpy(), peer.intercept_ - peer.intercept_.mean(), atol=2e-4)


@pytest.mark.parametrize("penalty", [0.1, 0.001])
def test_gradient_vanishes_with_the_bottleneck_added(penalty: float) -> None:
    z, y = data()
    offset = 3 * torch.randn(len(y), 3, generator=torch_generator(1, "offset"), dtype=torch.float64)
    w = solve_residual(z, y, offset, penalty).requires_grad_()
    loss = torch.nn.functional.cross_entropy(offset + z @ w[:-1] + w[-1], y) + penalty / 2 * w[:-1].square().sum()
    loss.backward()
    assert w.grad is not None
    assert float(w.grad.abs().max()) < 2e-5


def test_nothing_to_add_where_the_bottleneck_is_the_truth() -> None:
    generator = torch_generator(2, "truth")
    z = torch.randn(4000, 4, generator=generator, dtype=torch.float64)
    offset = z @ torch.randn(4, 3, generator=generator, dtype=torch.float64)
    y = torch.multinomial(offset.softmax(1), 1, generator=generator)[:, 0]
    alone = solve_residual(z, y, torch.zeros_like(offset), 0.001)
    added = solve_residual(z, y, offset, 0.001)
    assert float(added[:-1].norm()) < 0.15 * float(alone[:-1].norm())


def test_recovers_what_the_concepts_lack() -> None:
    z, y = data(900, 8)
    bottleneck = torch.zeros(900, 3, dtype=torch.float64)
    bottleneck[:, 0] = z[:, 0]
    train, val = (z[:600], y[:600], bottleneck[:600]), (z[600:], y[600:], bottleneck[600:])
    residual = fit_residual(train, val)
    before = float((val[2].argmax(1) == val[1]).double().mean())
    after = float(((val[2] + residual.logits(val[0])).argmax(1) == val[1]).double().mean())
    assert before < 0.6
    assert after > 0.85


def test_penalty_is_chosen_on_validation_the_strongest_of_equals() -> None:
    z, y = data(200)
    offset = torch.zeros(200, 3, dtype=torch.float64)
    scrambled = torch.full_like(y, -1)  # no prediction is ever right: all penalties are equally good
    assert fit_residual((z, y, offset), (z, scrambled, offset)).penalty == 0.1
    assert fit_residual((z, y, offset), (z, y, offset), grid=(100.0, 0.001)).penalty == 0.001


def test_same_bits_twice() -> None:
    z, y = data()
    offset = torch.zeros(len(y), 3, dtype=torch.float64)
    first, second = (fit_residual((z, y, offset), (z, y, offset)) for _ in range(2))
    assert torch.equal(first.weights, second.weights)
    assert torch.equal(first.bias, second.bias)
