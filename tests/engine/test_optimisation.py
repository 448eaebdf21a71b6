"""The learning rate as a pure function of the step equals PyTorch's schedulers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, MultiStepLR, OneCycleLR

from prunescope.engine.optimisation import learning_rate, make_optimizer
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


@pytest.mark.parametrize("per_epoch", [1, 7, 10])
def test_exponential_falls_after_every_epoch(per_epoch: int) -> None:
    training = Training(lr=0.1, schedule="exponential", gamma=0.9)
    ours = [learning_rate(training, step, 6 * per_epoch, per_epoch) for step in range(6 * per_epoch)]
    epochs = peer(lambda o: ExponentialLR(o, 0.9), 6)  # PyTorch counts its calls, one an epoch
    assert ours == pytest.approx([rate for rate in epochs for _ in range(per_epoch)], rel=1e-12)


def test_exponential_begins_to_fall_after_the_warmup() -> None:
    training = Training(lr=1.0, schedule="exponential", gamma=0.5, warmup_epochs=1, epochs=3)
    rates = [learning_rate(training, step, 6, 2) for step in range(6)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 0.5, 0.5])


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


def test_adam_adds_weight_decay_to_the_gradient_and_adamw_does_not() -> None:
    """Without a gradient, Adam's first step is lr long whatever the decay is; AdamW shrinks by lr x decay."""
    ends = {}
    for kind in ("adam", "adamw"):
        model = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            model.weight.fill_(2.0)
        model.weight.grad = torch.zeros_like(model.weight)
        make_optimizer(model, Training(optimizer=kind, lr=0.1, weight_decay=0.5)).step()  # type: ignore[arg-type]
        ends[kind] = model.weight.item()
    assert ends == {"adam": pytest.approx(2 - 0.1), "adamw": pytest.approx(2 - 2 * 0.1 * 0.5)}


def test_weight_decay_spares_norm_and_biases_when_asked() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
            parameter.grad = torch.zeros_like(parameter)
    training = Training(lr=0.1, momentum=0.0, weight_decay=0.5, decay_norm_bias=False)
    make_optimizer(model, training).step()
    shrunk = {
        name for name, parameter in model.named_parameters() if not torch.equal(parameter, torch.ones_like(parameter))
    }
    assert shrunk == {"0.weight", "3.weight"}
    assert model[3].weight[0, 0].item() == pytest.approx(1 - 0.1 * 0.5)
    make_optimizer(model, Training(lr=0.1, momentum=0.0, weight_decay=0.5)).step()
    assert model[1].bias[0].item() == pytest.approx(0.95)


def test_a_network_of_biases_only_can_spare_them() -> None:
    assert len(make_optimizer(nn.BatchNorm1d(3), Training(decay_norm_bias=False)).param_groups) == 1
