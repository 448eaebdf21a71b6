"""Concept vectors: the batched solver against LinearSVC, its optimality, AUROC against scikit-learn, the gate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.svm import LinearSVC
from torch import Tensor

from prunescope.core.seeds import torch_generator
from prunescope.probes.concepts.cav import Cavs, Scaling, auroc, fit_cavs
from prunescope.probes.concepts.svm import Svm, Table, balanced, linear_svm


def problem(n: int, dim: int, concepts: int, *, noise: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated embeddings and unbalanced labels that no hyperplane separates."""
    generator = torch_generator(seed, "svm problem")
    mix = torch.randn(dim, dim, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, dim)
    x = torch.randn(n, dim, generator=generator, dtype=torch.float64) @ mix
    x = (x - x.mean(0)) / x.std(0)
    logits = x @ torch.randn(dim, concepts, generator=generator, dtype=torch.float64)
    chance = noise * torch.randn(n, concepts, generator=generator, dtype=torch.float64)
    return x, (logits + chance > 2).to(torch.int8)


def objective(w: Tensor, x: Tensor, labels: Tensor, c: float) -> Tensor:
    """Of one concept, as liblinear has it; w (D + 1) ends with the intercept. Labels 1, 0, -1 unknown."""
    known = labels >= 0
    x, y = x[known], labels[known].double() * 2 - 1
    costs = torch.where(y > 0, len(y) / (2 * (y > 0).sum()), len(y) / (2 * (y < 0).sum()))
    slack = (1 - y * (x @ w[:-1] + w[-1])).clamp_min(0)
    return w.square().sum() / 2 + c * (costs * slack.square()).sum()


def with_intercept(svm: Svm, k: int) -> Tensor:
    return torch.cat([svm.weights[k], svm.intercepts[k : k + 1]])


@pytest.mark.parametrize(("n", "dim", "noise"), [(300, 12, 3.0), (60, 150, 0.5), (200, 40, 0.0)])
@pytest.mark.parametrize("c", [0.01, 1.0])
def test_equals_linear_svc(n: int, dim: int, noise: float, c: float) -> None:
    x, labels = problem(n, dim, 4, noise=noise)
    found = linear_svm(x, labels, c=c)
    for k in range(4):
        peer = LinearSVC(C=c, class_weight="balanced", dual=True, tol=1e-7, max_iter=10**6, random_state=0)
        peer.fit(x.numpy(), labels[:, k].numpy())
        theirs = torch.from_numpy(np.append(peer.coef_[0], peer.intercept_))
        ours = with_intercept(found, k)
        assert float(torch.cosine_similarity(ours, theirs, 0)) >= 0.99999
        reached, expected = (float(objective(w, x, labels[:, k], c)) for w in (ours, theirs))
        assert reached == pytest.approx(expected, rel=1e-5)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(8, 60), dim=st.integers(1, 80), c=st.sampled_from([1e-3, 0.1, 10.0]), seed=st.integers(0, 10**6))
def test_gradient_is_zero_whatever_the_labels(n: int, dim: int, c: float, seed: int) -> None:
    generator = torch_generator(seed, "labels")
    x, _ = problem(n, dim, 1, seed=seed)
    labels = torch.randint(-1, 2, (n, 3), generator=generator, dtype=torch.int8)
    labels[:2] = torch.tensor([[1], [0]], dtype=torch.int8)
    found = linear_svm(x, labels, c=c)
    assert float(found.gradient.max()) <= 1e-6
    for k in range(3):
        slopes = []
        for w in (with_intercept(found, k), torch.zeros(dim + 1, dtype=torch.float64)):
            w = w.clone().requires_grad_()
            slopes.append(torch.autograd.grad(objective(w, x, labels[:, k], c), w)[0].norm())
        # The solver stops by 1e-6 in its own scale of the features; in that of x it is a few times as much. Where the
        # terms of the slope at zero all but cancel, their size is the scale.
        terms = c * x.abs().sum(0).norm()
        assert float(slopes[0]) <= max(5e-6 * float(slopes[1]), 1e-7 * float(terms))


def test_a_concept_does_not_depend_on_its_companions() -> None:
    x, labels = problem(120, 10, 5)
    together = linear_svm(x, labels, c=0.1, tolerance=1e-10)
    for k in range(5):
        alone = linear_svm(x, labels[:, k : k + 1], c=0.1, tolerance=1e-10)
        torch.testing.assert_close(together.weights[k], alone.weights[0], rtol=1e-6, atol=1e-8)


def test_unknown_labels_weigh_nothing() -> None:
    x, labels = problem(150, 8, 2)
    labels[::3, 0] = -1
    known = labels[:, 0] >= 0
    found = linear_svm(x, labels, c=0.1, tolerance=1e-10)
    alone = linear_svm(x[known], labels[known], c=0.1, tolerance=1e-10)
    torch.testing.assert_close(found.weights[0], alone.weights[0], rtol=1e-6, atol=1e-8)


def test_warm_start_ends_at_the_same_place() -> None:
    x, labels = problem(150, 20, 3)
    cold = linear_svm(x, labels, c=1.0, tolerance=1e-10)
    warm = linear_svm(Table.of(x), labels, c=1.0, start=linear_svm(x, labels, c=0.01), tolerance=1e-10)
    torch.testing.assert_close(warm.weights, cold.weights, rtol=1e-6, atol=1e-8)


def test_concepts_without_both_kinds_have_no_vector() -> None:
    x, labels = problem(60, 5, 4)
    labels[:, 0], labels[:, 1], labels[:, 2] = 0, 1, -1
    found = fit_cavs((x, labels), (x, labels))
    assert not found.svm.weights[:3].any()
    assert found.auroc[:3].isnan().all()
    assert found.auroc[3] > 0.5
    assert found.distances(x)[:, :3].isnan().all()
    assert found.good(0.5, 1).tolist() == [False, False, False, True]


def test_features_without_variation() -> None:
    x, labels = problem(60, 5, 2)
    x[:, 2] = 7.0
    z = Scaling.of(x)(x)
    assert not z[:, 2].any()
    torch.testing.assert_close(z.std(0, correction=0), torch.tensor([1.0, 1, 0, 1, 1], dtype=torch.float64))
    assert float(fit_cavs((z, labels), (z, labels)).svm.weights[:, 2].abs().max()) < 1e-12
    dead = fit_cavs((torch.zeros_like(z), labels), (torch.zeros_like(z), labels))
    assert not dead.good(0.0, 1).any()


@settings(max_examples=30, deadline=None)
@given(n=st.integers(2, 30), levels=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_auroc_equals_scikit_learn(n: int, levels: int, seed: int) -> None:
    generator = torch_generator(seed, "auroc")
    scores = torch.randint(levels, (n, 3), generator=generator).double()  # few levels: many ties
    labels = torch.randint(-1, 2, (n, 3), generator=generator, dtype=torch.int8)
    found = auroc(scores, labels)
    for k in range(3):
        y, s = labels[:, k], scores[:, k]
        if (y == 1).any() and (y == 0).any():
            assert float(found[k]) == pytest.approx(roc_auc_score(y[y >= 0], s[y >= 0]), abs=1e-12)
        else:
            assert found[k].isnan()


def test_distance_is_to_the_hyperplane() -> None:
    svm = Svm(torch.tensor([[3.0, 4.0]]).double(), torch.tensor([-5.0]).double(), torch.zeros(1))
    one = torch.ones(1)
    x = torch.tensor([[3.0, 4.0], [-1.0, 2.0]]).double()
    assert Cavs(svm, 1.0, one, one, one, one, one).distances(x)[:, 0].tolist() == [4.0, 0.0]


@pytest.mark.parametrize("seed", range(4))
def test_the_strongest_regularisation_that_does_as_well_is_chosen(seed: int) -> None:
    x, labels = problem(200, 15, 3, noise=1.0, seed=seed)
    fit, held = (x[:100], labels[:100]), (x[100:], labels[100:])
    grid = (1.0, 1e-5, 0.1, 1e-3)
    means = {c: float(fit_cavs(fit, held, grid=(c,)).auroc.mean()) for c in grid}
    chosen = fit_cavs(fit, held, grid=grid)
    assert chosen.c == min(c for c in grid if means[c] >= max(means.values()) - 0.005)
    assert float(chosen.auroc.mean()) == pytest.approx(means[chosen.c], abs=1e-3)


def test_gate() -> None:
    def cavs(positives: int, held: int, area: float) -> Cavs:
        many = torch.tensor([100])
        svm = Svm(torch.ones(1, 2), torch.zeros(1), torch.zeros(1))
        return Cavs(svm, 1.0, torch.tensor([positives]), many, torch.tensor([area]), torch.tensor([held]), many)

    assert cavs(20, 5, 0.7).good(0.7, 20).item()
    assert not cavs(19, 5, 0.7).good(0.7, 20).item()
    assert not cavs(20, 4, 0.7).good(0.7, 20).item()
    assert not cavs(20, 5, 0.69).good(0.7, 20).item()
    assert not cavs(20, 5, float("nan")).good(0.7, 20).item()
    swapped = cavs(100, 100, 0.9)
    assert not replace(swapped, negatives=torch.tensor([3])).good(0.7, 20).item()


def test_balanced_weights_share_the_total() -> None:
    labels = torch.tensor([[1, 1], [0, -1], [0, 0], [0, 0], [-1, 0]])
    found = balanced(labels)
    assert found[:, 0].tolist() == pytest.approx([2, 2 / 3, 2 / 3, 2 / 3, 0])
    assert found.sum(0).tolist() == pytest.approx([4, 4])
