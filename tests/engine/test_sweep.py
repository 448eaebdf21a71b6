"""One pass serves every probe, and gives what plain autograd on the whole network gives."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.types import Record
from prunescope.data.split import Split
from prunescope.engine.sweep import Needs, Pass, find_module, logits_of, sweep

CLASSES = ("a", "b", "c")


def data(n: int = 20) -> Split:
    generator = torch.Generator().manual_seed(n)
    images = torch.randint(0, 256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.randint(3, (n,), generator=generator)
    return Split(images, labels, np.array([f"{n}-{i}" for i in range(n)]), CLASSES)


class Residual(nn.Module):
    """In-place everything, as in torchvision's networks: what is captured must survive it."""

    def __init__(self, inplace: bool = True) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu, self.fc = nn.ReLU(inplace=inplace), nn.Linear(4, 3)
        self.aside = nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.relu(self.bn1(self.conv1(x)))
        second = self.bn2(self.conv2(first))
        second += first
        second = self.relu(second)
        self.aside(second)  # runs, and no logit depends on it
        return self.fc(second.mean((2, 3)))


def network(inplace: bool = True) -> Residual:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Residual(inplace)
        for bn in (model.bn1, model.bn2):
            nn.init.normal_(bn.weight)
            nn.init.normal_(bn.running_mean)
    return model


@dataclass(eq=False)
class Gatherer:
    """Keeps what `look` makes of every batch."""

    needs: Needs
    look: Callable[[Pass], Any] = lambda batch: None
    seen: list[Any] = field(default_factory=list)
    finished: int = 0

    def update(self, batch: Pass) -> None:
        self.seen.append(self.look(batch))

    def finish(self) -> Record:
        self.finished += 1
        return Record("test", {"batches": len(self.seen)})


def copies(batch: Pass) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in batch.activations.items()}


def joined(found: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    found = list(found)
    return {name: torch.cat([item[name] for item in found]) for name in found[0]}


def plainly(x: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Logits, activations and gradients of the same network, without in-place operations, guards and hooks."""
    model = network(inplace=False).eval()
    kept = {"conv1": model.conv1(x)}
    kept["bn1"] = model.bn1(kept["conv1"])
    first = kept["bn1"].relu()
    kept["conv2"] = model.conv2(first)
    kept["bn2"] = model.bn2(kept["conv2"])
    kept["fc:input"] = (kept["bn2"] + first).relu().mean((2, 3))
    for value in kept.values():
        value.retain_grad()
    logits = model.fc(kept["fc:input"])
    logits[torch.arange(len(x)), target].sum().backward()
    assert model.conv1.weight.grad is not None
    return logits.detach(), {k: v.detach() for k, v in kept.items()}, {k: v.grad for k, v in kept.items()}  # type: ignore[misc]


def close(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert set(a) == set(b)
    for name in a:
        torch.testing.assert_close(
            a[name], b[name], rtol=1e-4, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


LAYERS = ("conv1", "bn1", "conv2", "bn2", "fc:input")


@given(
    gradients=st.lists(st.sampled_from(LAYERS), unique=True, min_size=1), batch_size=st.integers(1, 25),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=20, deadline=None)
def test_any_chain_of_layers_equals_plain_autograd(gradients: list[str], batch_size: int, seed: int) -> None:
    split = data()
    target = torch.randint(3, (20,), generator=torch.Generator().manual_seed(seed))
    asking = Gatherer(
        Needs(LAYERS, tuple(gradients)),
        lambda b: (b.logits.clone(), copies(b), {k: v.clone() for k, v in b.grads(target[b.index]).items()}),
    )
    sweep(network(), {"test": split}, [asking], batch_size=batch_size)
    logits, activations, grads = plainly(split.normalisation(split.images[:]), target)
    torch.testing.assert_close(torch.cat([item[0] for item in asking.seen]), logits, rtol=1e-4, atol=1e-6)
    close(joined(item[1] for item in asking.seen), activations)
    close(joined(item[2] for item in asking.seen), {name: grads[name] for name in gradients})


def test_captures_survive_inplace_operations_without_gradients_too() -> None:
    split, plain = data(), Gatherer(Needs(LAYERS), copies)
    sweep(network(), {"test": split}, [plain])
    _, activations, _ = plainly(split.normalisation(split.images[:]), split.labels)
    assert (activations["bn1"] < 0).any()
    close(plain.seen[0], activations)


def test_watching_does_not_change_the_logits() -> None:
    watching, blind = (Gatherer(needs, lambda b: b.logits.clone()) for needs in (Needs(LAYERS, LAYERS), Needs()))
    sweep(network(), {"test": data()}, [watching])
    sweep(network(), {"test": data()}, [blind])
    assert torch.equal(watching.seen[0], blind.seen[0])


def test_probes_share_the_forward_pass_and_equal_backward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    backwards, real = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: backwards.append(1) or real(*a, **k))
    forwards, model = [], network()
    model.register_forward_hook(lambda *_: forwards.append(1))
    first = Gatherer(Needs(("bn1",), ("bn1",)), lambda b: b.grads(b.y))
    second = Gatherer(Needs(("bn2",), ("bn2",)), lambda b: (b.grads(b.y.clone()), b.grads(b.logits.argmax(1))))
    third = Gatherer(Needs(("conv1",)))
    sweep(model, {"test": data()}, [first, second, third], batch_size=10)
    different = sum(len({tuple(y), tuple(p)}) for y, p in zip(*_targets(), strict=True))
    assert (len(forwards), len(backwards)) == (2, different)
    assert different == 4
    assert first.seen[0] is second.seen[0][0]
    assert set(first.seen[0]) == {"bn1", "bn2"}


def _targets() -> tuple[list[list[int]], list[list[int]]]:
    found = Gatherer(Needs(), lambda b: (b.y.tolist(), b.logits.argmax(1).tolist()))
    sweep(network(), {"test": data()}, [found], batch_size=10)
    return [y for y, _ in found.seen], [p for _, p in found.seen]


def test_a_layer_beside_the_path_has_zero_gradient() -> None:
    asking = Gatherer(Needs(("aside", "bn2"), ("aside", "bn2")), lambda b: b.grads(b.y))
    sweep(network(), {"test": data()}, [asking])
    assert asking.seen[0]["aside"].shape == (20, 1, 8, 8)
    assert not asking.seen[0]["aside"].any()
    assert asking.seen[0]["bn2"].any()


def test_weights_get_no_gradient_and_nothing_records_without_a_wish() -> None:
    model = network()
    asking = Gatherer(Needs(("bn1",), ("bn1",)), lambda b: (b.grads(b.y), b.logits.requires_grad))
    sweep(model, {"test": data()}, [asking])
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not asking.seen[0][1]
    plain = Gatherer(Needs(("bn1",)), lambda b: (b.activations["bn1"].requires_grad, torch.is_grad_enabled()))
    sweep(model, {"test": data()}, [plain])
    assert plain.seen == [(False, False)]


def test_only_the_layers_behind_the_first_wish_are_differentiated() -> None:
    asking = Gatherer(
        Needs(("conv1", "bn2"), ("bn2",)), lambda b: [b.activations[k].requires_grad for k in LAYERS[::3]]
    )
    sweep(network(), {"test": data()}, [asking])
    assert asking.seen == [[False, True]]


@pytest.mark.parametrize("gradients", [(), LAYERS])
def test_a_batch_is_freed_before_the_next_runs(gradients: tuple[str, ...]) -> None:
    alive: list[weakref.ref[Tensor]] = []
    leaks: list[int] = []

    def look(batch: Pass) -> None:
        if gradients:
            alive.extend(weakref.ref(value) for value in batch.grads(batch.y).values())
        alive.extend(weakref.ref(value) for value in (*batch.activations.values(), batch.logits, batch._graph_logits))

    model = network()
    model.register_forward_pre_hook(lambda *_: leaks.append(sum(reference() is not None for reference in alive)))
    sweep(model, {"test": data()}, [Gatherer(Needs(LAYERS, gradients), look)], batch_size=5)
    assert leaks == [0, 0, 0, 0]
    assert len(alive) == 4 * (7 + len(gradients))


def test_splits_are_walked_once_by_those_who_want_them() -> None:
    splits, counted = {"train": data(12), "val": data(9), "test": data(7)}, []
    place = lambda b: (b.split, b.index.tolist(), b.y.tolist())  # noqa: E731
    both = Gatherer(Needs(splits=("val", "test")), place)
    test = Gatherer(Needs(("conv1",)), place)
    records = sweep(network(), splits, [both, test], batch_size=4, on_batch=counted.append)
    assert [item[:2] for item in both.seen] == [
        ("val", [0, 1, 2, 3]), ("val", [4, 5, 6, 7]), ("val", [8]), ("test", [0, 1, 2, 3]), ("test", [4, 5, 6]),
    ]  # fmt: skip
    assert test.seen == both.seen[3:]
    assert [label for item in both.seen for label in item[2]] == splits["val"].labels.tolist() + splits[
        "test"
    ].labels.tolist()
    assert counted == [4, 4, 1, 4, 3]
    assert [record.metrics["batches"] for record in records] == [5, 2]
    assert (both.finished, test.finished) == (1, 1)


class FailingError(Exception):
    """A probe's own."""


@pytest.mark.parametrize("where", ["update", "finish", "backward", "none"])
def test_the_network_is_as_before_also_after_failure(where: str) -> None:
    model = network().train()
    model.bn2.eval()
    model.conv1.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    rng = torch.get_rng_state()

    def look(batch: Pass) -> None:
        torch.rand(3)
        assert not model.training
        if where == "update" and batch.index[0]:
            raise FailingError
        batch.grads(batch.y + 99 if where == "backward" else batch.y)

    gatherer = Gatherer(Needs(LAYERS, LAYERS), look)
    if where == "finish":
        gatherer.finish = lambda: (_ for _ in ()).throw(FailingError)  # type: ignore[method-assign]
    try:
        sweep(model, {"test": data()}, [gatherer], batch_size=10)
    except (FailingError, RuntimeError):
        assert where != "none"
    else:
        assert where == "none"
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()][:2] == [False, True]
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.is_grad_enabled()


class Odd(nn.Module):
    """A layer that gives a tuple, and one that rests in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.extra, self.fc = nn.LSTM(24, 4, batch_first=True), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        h = self.rnn(x.transpose(1, 2).flatten(2))[0][:, -1]
        return (self.fc(h), self.extra(h)) if self.training else self.fc(h)


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [
        (network(), "conv3", "unknown layer 'conv3'; did you mean 'conv"),
        (network(), "", "unknown layer ''"),
        (network(), "conv1:output", "unknown side of a layer 'output' in conv1:output"),
        (Odd(), "rnn", "layer 'rnn' gives a tuple, not a tensor"),
        (Odd(), "extra", "layer 'extra' does not run"),
    ],
)
def test_what_cannot_be_watched_is_refused(model: nn.Module, layer: str, message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        sweep(model, {"test": data()}, [Gatherer(Needs((layer,)))])
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_what_was_not_asked_for_is_refused() -> None:
    with pytest.raises(PrunescopeError, match=r"unknown split 'tset'; did you mean 'test'"):
        sweep(network(), {"test": data()}, [Gatherer(Needs(splits=("tset",)))])
    with pytest.raises(PrunescopeError, match=r"names one in Needs\.gradients"):
        sweep(network(), {"test": data()}, [Gatherer(Needs(("bn1",)), lambda b: b.grads(b.y))])


def test_layers_by_name_and_logits_of_tuples() -> None:
    model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.Linear(1, 1))
    assert find_module(model, "0.0") is model[0][0]
    x, y = torch.zeros(2, 3), torch.ones(2, 3)
    assert logits_of(x) is logits_of((x, y)) is logits_of((x, None)) is x

    class Output(tuple):
        logits = y

    assert logits_of(Output((x,))) is y
