"""The learning rate as a pure function of the step equals PyTorch's schedulers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, OneCycleLR

from prunescope.core.errors import PrunescopeError
from prunescope.engine.optimisation import learning_rate, make_optimizer
from prunescope.engine.steps import Step
from prunescope.engine.training import Training


def peer(make: object, total: int) -> list[float]:
    """The rates that a scheduler of PyTorch gives, step by step."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make(optimizer)  # type: ignore[operator]
    found = []
    for _ in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("total", [10, 40, 97])
def test_schedules_equal_pytorchs(total: int) -> None:
    ours = {
        kind: [learning_rate(Training(lr=0.1, schedule=kind), step, total, 10) for step in range(total)]  # type: ignore[arg-type]
        for kind in ("cosine", "step", "onecycle", "constant")
    }
    assert ours["constant"] == [0.1] * total
    assert ours["cosine"] == pytest.approx(peer(lambda o: CosineAnnealingLR(o, total), total))
    milestones = [round(0.5 * total), round(0.75 * total)]
    assert ours["step"] == pytest.approx(peer(lambda o: MultiStepLR(o, milestones, gamma=0.1), total))
    assert ours["onecycle"] == pytest.approx(
        peer(lambda o: OneCycleLR(o, 0.1, total_steps=total, cycle_momentum=False), total), abs=1e-9
    )


def test_warmup_rises_linearly_to_the_schedule() -> None:
    training = Training(lr=1.0, schedule="cosine", warmup_epochs=1, epochs=3)
    rates = [learning_rate(training, step, 30, 10) for step in range(30)]
    assert rates[:11] == pytest.approx([(i + 1) / 11 for i in range(10)] + [1.0])
    assert rates[11:] == sorted(rates[11:], reverse=True)


def test_optimisers() -> None:
    model = nn.Linear(2, 2)
    sgd = make_optimizer(model, Training(momentum=0.8, nesterov=True, weight_decay=0.1))
    assert isinstance(sgd, torch.optim.SGD)
    assert (sgd.defaults["momentum"], sgd.defaults["nesterov"], sgd.defaults["weight_decay"]) == (0.8, True, 0.1)
    assert isinstance(make_optimizer(model, Training(optimizer="adamw")), torch.optim.AdamW)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"epochs": 0}, "epochs must be above 0 and finite, got 0"),
        ({"lr": -1.0}, "lr must be above 0"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov"),
        ({"milestones": (0.7, 0.3)}, "rising"),
        ({"warmup_epochs": 10.0, "epochs": 5.0}, "warmup_epochs"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"batch_size": 0, "gamma": 2.0}, "batch_size must be at least 1, got 0; gamma"),
    ],
)
def test_impossible_trainings_are_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(PrunescopeError, match=expected):
        Training(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "step"), [("1ep", 100), ("0.5ep", 50), ("500it", 500), ("5%", 50), ("0it", 0), (" 2 ep ", 200)]
)
def test_places_in_a_training(text: str, step: int) -> None:
    assert Step.parse(text).at(per_epoch=100, total=1000) == step


@pytest.mark.parametrize("text", ["", "ep", "1", "1 epoch", "-1ep", "1ep2it", "nan%"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(PrunescopeError, match="written 1ep"):
        Step.parse(text)


def test_a_place_behind_the_end_is_refused() -> None:
    with pytest.raises(PrunescopeError, match="behind the end"):
        Step.parse("11ep").at(per_epoch=100, total=1000)
    assert str(Step.parse("0.50ep")) == "0.5ep"
