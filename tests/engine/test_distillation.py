"""Distillation against the formula written out, and a training with a teacher against one without."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_train import PLAIN, PowerCutError, TwoHeads, data, network, random_mask, same
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.seeds import derive
from prunescope.data.training_batches import training_batches
from prunescope.engine.distillation import Distillation, Teacher
from prunescope.engine.train import StepState, fit


def softmax(logits: list[float], temperature: float) -> list[float]:
    """Eq. 1 of the paper."""
    powers = [math.exp(z / temperature) for z in logits]
    return [power / sum(powers) for power in powers]


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=6),
    st.floats(0, 1), st.floats(0.5, 20), st.floats(0, 9),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_loss_is_the_papers(pairs: list[tuple[float, float]], weight: float, t: float, hard: float) -> None:
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    q, p = softmax(ours, t), softmax(theirs, t)
    divergence = sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))
    found = Distillation(weight, t)(torch.tensor(hard), torch.tensor([ours]), torch.tensor([theirs]))
    assert float(found) == pytest.approx((1 - weight) * hard + weight * t**2 * divergence, rel=1e-4, abs=1e-4)


def test_the_gradient_hardly_depends_on_a_high_temperature() -> None:
    """Section 2: with T^2, at high temperatures and logits of mean zero, it is (ours - theirs) / classes."""
    ours = torch.tensor([[1.0, -2.0, 1.0]], requires_grad=True)
    theirs = torch.tensor([[0.5, 0.5, -1.0]])
    loss = Distillation(1.0, 1000.0)(torch.zeros(()), ours, theirs)
    (gradient,) = torch.autograd.grad(loss, ours)
    assert torch.allclose(gradient, (ours - theirs).detach() / 3, atol=2e-3)


def test_the_mean_is_over_images() -> None:
    ours, theirs = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    by = Distillation(1.0, 2.0)
    each = [float(by(torch.zeros(()), a[None], b[None])) for a, b in zip(ours, theirs, strict=True)]
    assert float(by(torch.zeros(()), ours, theirs)) == pytest.approx(sum(each) / 5, rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"weight": -0.1}, {"weight": 1.1}, {"weight": math.nan}, {"temperature": 0}, {"temperature": math.inf}]
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PrunescopeError, match=next(iter(options))):
        Distillation(**options)


# In a training


def teacher(weight: float = 0.5, seed: int = 7) -> Teacher:
    return Teacher(network(seed, dropout=0.4), Distillation(weight, 3.0))


def test_weight_zero_is_training_without_a_teacher_bit_for_bit() -> None:
    alone, taught = network(dropout=0.3), network(dropout=0.3)
    fit(alone, data(), PLAIN, seed=1, device="cpu")
    fit(taught, data(), PLAIN, seed=1, teacher=teacher(0.0), device="cpu")
    assert same(alone, taught)
    fit(taught, data(), PLAIN, seed=1, teacher=teacher(0.1), device="cpu")
    assert not same(alone, taught)


def test_the_teacher_stays_as_it_was_and_answers_in_eval_mode() -> None:
    master, losses = teacher(1.0), list[Tensor]()
    master.network.train()  # with dropout: answers in train mode would be others
    before = [tensor.clone() for tensor in master.network.state_dict().values()]
    student = network(3)
    x, _ = next(training_batches(data(), batch_size=80, seed=derive(0, "training", 0), epoch=0))
    training = replace(PLAIN, batch_size=80, epochs=1, augment=replace(PLAIN.augment, crop_padding=0, flip=False))
    logits = network(3).train()(x)
    fit(student, data(), training, seed=0, teacher=master, device="cpu", on_step=[lambda s: losses.append(s.loss)])
    assert master.network.training
    assert all(torch.equal(a, b) for a, b in zip(before, master.network.state_dict().values(), strict=True))
    assert all(p.requires_grad and p.grad is None for p in master.network.parameters())
    soft, ours = F.softmax(master.network.eval()(x) / 3, 1), F.log_softmax(logits / 3, 1)
    expected = 9 * (soft * (soft.log() - ours)).sum(1).mean()
    assert float(losses[0]) == pytest.approx(expected.item(), rel=1e-4)


def test_a_network_may_learn_from_itself_as_it_was() -> None:
    one, other = network(), network()
    mask = random_mask(one, 0, 0.5)
    fit(one, data(), PLAIN, seed=1, mask=mask, teacher=Teacher(one), device="cpu")
    fit(other, data(), PLAIN, seed=1, mask=mask, teacher=Teacher(network()), device="cpu")
    assert same(one, other)


def test_a_student_comes_to_answer_as_its_teacher() -> None:
    master, ((_, x, _),) = network(5), data().batches(80)
    fit(master, data(), replace(PLAIN, epochs=6), seed=2, device="cpu")

    @torch.no_grad()
    def answers(net: nn.Module) -> Tensor:
        return F.log_softmax(net.eval()(x), 1)

    def distance(weight: float) -> float:
        student = network(1)
        fit(student, data(), PLAIN, seed=1, teacher=Teacher(master, Distillation(weight)), device="cpu")
        return F.kl_div(answers(student), answers(master), reduction="batchmean", log_target=True).item()

    assert distance(1.0) < distance(0.0)


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_killed_and_resumed_gives_the_same_bits(tmp_path: Path, precision: Any) -> None:
    training, expected, found = replace(PLAIN, precision=precision), network(), network()
    fit(expected, data(), training, seed=1, teacher=teacher(), device="cpu")

    def kill(step: StepState) -> None:
        if step.step == 8:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        fit(network(), data(), training, seed=1, teacher=teacher(), state=tmp_path / "s", on_step=[kill], device="cpu")
    stored = (tmp_path / "s").read_bytes()
    fit(found, data(), training, seed=1, teacher=teacher(), state=tmp_path / "s", device="cpu")
    assert same(expected, found)
    for other in (None, teacher(seed=8), teacher(weight=0.4)):
        (tmp_path / "s").write_bytes(stored)
        with pytest.warns(PrunescopeWarning, match="belongs to another training"):
            fit(network(), data(), training, seed=1, teacher=other, state=tmp_path / "s", device="cpu")


def test_heads_beside_the_main_one_learn_from_labels_only() -> None:
    torch.manual_seed(0)
    student: nn.Module = TwoHeads()
    before, body = student.extra.weight.clone(), student.body.weight.clone()  # type: ignore[union-attr, operator]
    training = replace(PLAIN, weight_decay=0.0)
    fit(student, data(), training, seed=0, teacher=Teacher(network(), Distillation(1.0)), device="cpu")
    assert torch.equal(student.extra.weight, before)  # type: ignore[arg-type, union-attr]
    assert not torch.equal(student.body.weight, body)  # type: ignore[arg-type, union-attr]
