"""The sparse head: optimality, exact zeros, agreement with scikit-learn, the choice of the penalty, the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from prunescope.core.seeds import numpy_generator, torch_generator
from prunescope.probes.concepts import elastic_net
from prunescope.probes.concepts.elastic_net import ElasticNet
from prunescope.probes.concepts.head import bootstrap_weights, fit_head, one_standard_error, top, top_frequency


def planted(n: int = 400, concepts: int = 7, classes: int = 3, seed: int = 0, noise: float = 1.0) -> tuple[Tensor, ...]:
    """Correlated scores; class k is called for by concept k alone."""
    generator = torch_generator(seed, "planted")
    x = torch.randn(n, concepts, generator=generator, dtype=torch.float64)
    x = x + 0.5 * x.roll(1, dims=1)
    y = (3 * x[:, :classes] + noise * torch.randn(n, classes, generator=generator, dtype=torch.float64)).argmax(1)
    return (x - x.mean(0)) / x.std(0, correction=0), y


def objective(problem: ElasticNet, w: Tensor, lam: float, weights: Tensor | None = None) -> float:
    """Written out once more, with torch's own cross-entropy."""
    loss = torch.nn.functional.cross_entropy(problem.x @ w[:-1] + w[-1], problem.y, reduction="none")
    mean = loss.mean() if weights is None else (weights * loss).sum()
    inner = w[:-1]
    l1 = problem.l1_ratio
    return float(mean + lam * (l1 * inner.abs().sum() + (1 - l1) / 2 * inner.square().sum()))


def assert_optimal(problem: ElasticNet, w: Tensor, lam: float, tolerance: float, weights: Tensor | None = None) -> None:
    """Karush-Kuhn-Tucker: |gradient| <= l1 where the weight is zero, = -l1 sign(w) elsewhere, 0 at the bias."""
    w = w.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(problem.x @ w[:-1] + w[-1], problem.y, reduction="none")
    (loss.mean() if weights is None else (weights * loss).sum()).backward()
    assert w.grad is not None
    gradient, inner = w.grad[:-1] + lam * (1 - problem.l1_ratio) * w.detach()[:-1], w.detach()[:-1]
    l1, zero = lam * problem.l1_ratio, inner == 0
    assert float(w.grad[-1].abs().max()) < tolerance
    assert not zero.any() or float(gradient[zero].abs().max()) <= l1 + tolerance
    assert zero.all() or float((gradient + l1 * inner.sign())[~zero].abs().max()) < tolerance


@pytest.mark.parametrize("lam", [0.2, 0.05, 0.01, 0.001])
@pytest.mark.parametrize("l1_ratio", [0.99, 0.5])
def test_solution_is_optimal(lam: float, l1_ratio: float) -> None:
    problem = ElasticNet(*planted(), 3, l1_ratio)
    w = problem.solve(lam, problem.empty(), tolerance=1e-9)[0]
    assert_optimal(problem, w, lam, 1e-8)
    assert float(w[-1].sum()) == pytest.approx(0, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    lam=st.floats(1e-3, 0.3),
    l1_ratio=st.floats(0.1, 1.0),
    classes=st.integers(2, 5),
    noise=st.floats(0.3, 5.0),
)
def test_solution_is_optimal_for_any_problem(
    seed: int, lam: float, l1_ratio: float, classes: int, noise: float
) -> None:
    problem = ElasticNet(*planted(120, 6, classes, seed, noise), classes, l1_ratio)
    assert_optimal(problem, problem.solve(lam, problem.empty(), tolerance=1e-8)[0], lam, 1e-7)


@pytest.mark.parametrize("lam", [0.05, 0.005])
def test_same_solution_as_sklearn(lam: float) -> None:
    x, y = planted()
    problem = ElasticNet(x, y, 3, 0.7)
    ours = problem.solve(lam, problem.empty(), tolerance=1e-9)[0]
    peer = LogisticRegression(
        solver="saga", l1_ratio=0.7, C=1 / (lam * len(y)), max_iter=20_000, tol=1e-10, random_state=0,
        **({} if _new_sklearn() else {"penalty": "elasticnet"}),
    ).fit(x.numpy(), y.numpy())  # fmt: skip
    np.testing.assert_allclose(ours[:-1].T.numpy(), peer.coef_, atol=1e-5)
    theirs = torch.from_numpy(np.vstack([peer.coef_.T, peer.intercept_]))
    assert objective(problem, ours, lam) <= objective(problem, theirs, lam) + 1e-10
    assert ((ours[:-1] == 0).numpy() == (np.abs(peer.coef_.T) < 1e-7)).all()


def _new_sklearn() -> bool:
    """From 1.8 on `penalty` is deprecated and `l1_ratio` says it all."""
    import sklearn

    return tuple(int(part) for part in sklearn.__version__.split(".")[:2]) >= (1, 8)


def test_blocks_in_place_of_the_hessian_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = ElasticNet(*planted(), 3)
    exact = problem.solve(0.02, problem.empty(), tolerance=1e-8)
    monkeypatch.setattr(elastic_net, "_DENSE", 0)
    blocks = problem.solve(0.02, problem.empty(), tolerance=1e-8, steps=300)
    torch.testing.assert_close(blocks, exact, atol=1e-6, rtol=0)
    assert ((blocks == 0) == (exact == 0)).all()


def test_hessian_is_that_of_autograd() -> None:
    problem = ElasticNet(*planted(60), 3)
    x = torch.cat([problem.x, torch.ones(60, 1, dtype=torch.float64)], 1)
    generator = torch_generator(0, "hessian")
    w = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    s = torch.rand(60, generator=generator, dtype=torch.float64)
    s = s / s.sum()

    def loss(flat: Tensor) -> Tensor:
        logits = x @ flat.view(8, 3)
        return (s * torch.nn.functional.cross_entropy(logits, problem.y, reduction="none")).sum()

    reference = torch.autograd.functional.hessian(loss, w.flatten())
    product, largest = elastic_net._curvature(x, s, w)
    direction = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(product(direction).flatten(1), direction.flatten(1) @ reference)
    assert float(largest) == pytest.approx(float(torch.linalg.eigvalsh(reference)[-1]))


def test_largest_penalty_is_the_first_that_leaves_nothing() -> None:
    problem = ElasticNet(*planted(), 3)
    lam = problem.largest()
    start = problem.empty()
    assert not problem.solve(lam * 1.0001, start, tolerance=1e-9)[0, :-1].any()
    assert problem.solve(lam * 0.99, start, tolerance=1e-9)[0, :-1].any()


def test_replicates_are_solved_as_if_alone() -> None:
    x, y = planted(200)
    problem = ElasticNet(x, y, 3)
    counts = torch.from_numpy(numpy_generator(0, "counts").multinomial(200, [1 / 200] * 200, size=4)).double()
    together = problem.solve(0.02, problem.empty(4), counts / 200, tolerance=1e-9)
    for replicate, count in zip(together, counts, strict=True):
        assert_optimal(problem, replicate, 0.02, 1e-8, count / 200)
        drawn = torch.repeat_interleave(torch.arange(200), count.long())
        resampled = ElasticNet(x[drawn], y[drawn], 3)
        alone = resampled.solve(0.02, resampled.empty(), tolerance=1e-9)[0]
        torch.testing.assert_close(replicate, alone, atol=1e-6, rtol=0)


def test_separable_classes_and_a_class_without_samples() -> None:
    x = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]], dtype=torch.float64)
    problem = ElasticNet(x, torch.tensor([0, 0, 1, 1]), 3)
    w = problem.solve(1e-3, problem.empty(), tolerance=1e-6)[0]
    assert w.isfinite().all()
    assert (x @ w[:-1] + w[-1]).argmax(1).tolist() == [0, 0, 1, 1]


def test_start_is_left_alone() -> None:
    problem = ElasticNet(*planted(100), 3)
    start = problem.empty()
    before = start.clone()
    problem.solve(0.01, start)
    assert torch.equal(start, before)


def test_path_gets_denser_and_the_head_names_the_causes() -> None:
    x, y = planted(600)
    problem = ElasticNet(x[:400], y[:400], 3)
    head = fit_head(problem, (x[400:], y[400:]))
    assert head.nonzeros[0] == 0
    assert head.nonzeros[-1] > 10
    assert (head.penalties.diff() < 0).all()
    assert head.weights.argmax(1).tolist() == [0, 1, 2]
    assert head.penalty == float(head.penalties[_first_within_an_error(head.accuracy.tolist(), 200)])
    assert_optimal(problem, torch.cat([head.weights.T, head.bias[None]]), head.penalty, 1e-7)
    assert float((head.logits(x[400:]).argmax(1) == y[400:]).double().mean()) == pytest.approx(
        float(head.accuracy[head.penalties == head.penalty]), abs=0.011
    )


def _first_within_an_error(accuracy: list[float], n: int) -> int:
    best = max(accuracy)
    return next(i for i, value in enumerate(accuracy) if value >= best - (best * (1 - best) / n) ** 0.5)


def test_whole_path_is_near_optimal() -> None:
    x, y = planted(300, 5, 3)
    problem = ElasticNet(x, y, 3)
    head = fit_head(problem, (x, y))
    for lam, nonzeros in zip(head.penalties.tolist(), head.nonzeros.tolist(), strict=True):
        exact = problem.solve(lam, problem.empty(), tolerance=1e-9)[0, :-1]
        assert abs(int((exact != 0).sum()) - nonzeros) <= 1


@pytest.mark.parametrize(
    ("percent", "index"), [([50, 90, 90], 1), ([50, 86, 90], 2), ([50, 88, 90], 1), ([100, 100], 0)]
)
def test_one_standard_error(percent: list[int], index: int) -> None:
    """Of 90 % on 100 samples it is 3 %."""
    right = torch.stack([(torch.arange(100) < p).double() for p in percent])
    assert one_standard_error(right, torch.zeros(100)) == index


def test_balanced_choice_is_not_satisfied_with_the_frequent_class() -> None:
    """9 in 10 samples are of one class, so that an empty head seems within an error of the best."""
    generator = torch_generator(3, "rare")
    x = torch.randn(400, 4, generator=generator, dtype=torch.float64)
    y = (x[:, 0] + 0.7 * torch.randn(400, generator=generator, dtype=torch.float64) > 1.7).long()
    problem = ElasticNet(x[:300], y[:300], 2)
    plain, balanced = (fit_head(problem, (x[300:], y[300:]), balanced=value) for value in (False, True))
    assert torch.equal(plain.accuracy, balanced.accuracy)
    assert not plain.weights.any()
    assert balanced.weights[1].argmax() == 0
    assert balanced.penalty < plain.penalty


def test_bootstrap_finds_causes_stable_and_chance_unstable() -> None:
    x, y = planted(600, 10)
    problem = ElasticNet(x[:400], y[:400], 3)
    head = fit_head(problem, (x[400:], y[400:]))
    counts = torch.from_numpy(numpy_generator(1, "boot").multinomial(400, [1 / 400] * 400, size=30))
    replicates = bootstrap_weights(problem, head, counts)
    assert replicates.shape == (30, 3, 10)
    assert float(replicates.std(0).max()) > 0.01
    chosen = top(head.weights, 3)
    frequency = top_frequency(chosen, top(replicates, 3))
    assert (frequency[:, 0] == 1).all()
    assert ((frequency >= 0) & (frequency <= 1)).all()


def test_top_pads_what_does_not_speak_for_a_class() -> None:
    assert top(torch.tensor([[0.0, 2.0, 3.0, -1.0], [0.0, 0.0, 0.0, -1.0]]), 6).tolist() == [
        [2, 1, -1, -1, -1, -1],
        [-1] * 6,
    ]


def test_top_frequency_counts_members_not_places() -> None:
    chosen = torch.tensor([[0, 1], [2, -1]])
    replicates = torch.tensor([[[1, 0], [2, 0]], [[0, 2], [-1, -1]]])
    assert top_frequency(chosen, replicates).tolist() == [[1.0, 0.5], [0.5, 0.0]]
