"""`fit` against a plain loop, its masks, and its promise that interruption changes nothing."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.mask import Mask
from prunescope.core.seeds import derive
from prunescope.data.augment import Augmentation
from prunescope.data.split import Split
from prunescope.data.training_batches import steps_per_epoch, training_batches
from prunescope.engine.optimisation import learning_rate, make_optimizer
from prunescope.engine.train import Diverged, StepState, accuracy, fit
from prunescope.engine.training import Training

PLAIN = Training(epochs=3, batch_size=16, lr=0.05, precision="32", augment=Augmentation(crop_padding=1, flip=True))


def data(n: int = 80, classes: int = 3) -> Split:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    images = torch.randint(0, 120, (n, 3, 8, 8), generator=generator) + 40 * labels[:, None, None, None]
    return Split(images.to(torch.uint8), labels, [str(i) for i in range(n)], tuple("abc"[:classes]))  # type: ignore[arg-type]


def network(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3),
        )  # fmt: skip


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def plain_loop(model: nn.Module, split: Split, training: Training, seed: int, weight: Tensor | None = None) -> None:
    """What `fit` is meant to do, as anybody would write it."""
    seed = derive(seed, "training", 0)
    model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = make_optimizer(model, training)
    per_epoch, total = steps_per_epoch(split, training.batch_size), training.total_steps(split)
    step = 0
    while step < total:
        epoch = step // per_epoch
        batches = training_batches(
            split, batch_size=training.batch_size, seed=seed, epoch=epoch, augment=training.augment
        )
        for x, y in batches:
            if step == total:
                break
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(training, step, total, per_epoch)
            loss = F.cross_entropy(model(x), y, weight=weight, label_smoothing=training.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "adamw", "lr": 0.01}, {"optimizer": "adam", "lr": 0.01, "schedule": "exponential"},
     {"nesterov": True, "schedule": "onecycle"}, {"epochs": 1.5},
     {"label_smoothing": 0.1}],
)  # fmt: skip
def test_equals_a_plain_loop_bit_for_bit(changes: dict[str, Any]) -> None:
    training = replace(PLAIN, **changes)
    ours, theirs, split = network(), network(), data()
    history = fit(ours, split, training, seed=3, device="cpu")
    plain_loop(theirs, split, training, seed=3)
    assert same(ours, theirs)
    assert history[-1]["step"] == training.total_steps(split)


def test_balanced_class_weights() -> None:
    split = data()
    split = split.subset(torch.cat([(split.labels == 0).nonzero()[:, 0], (split.labels == 1).nonzero()[:5, 0],
                                    (split.labels == 2).nonzero()[:15, 0]]))  # fmt: skip
    counts = torch.bincount(split.labels).float()
    training = Training(epochs=1, batch_size=16, lr=0.05, precision="32", class_weights="balanced")
    ours, theirs = network(), network()
    fit(ours, split, training, seed=0, device="cpu")
    plain_loop(theirs, split, training, seed=0, weight=len(split) / (3 * counts))
    assert same(ours, theirs)


def random_mask(model: nn.Module, seed: int, density: float) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    names = ["0.weight", "6.weight"]
    shapes = dict(model.named_parameters())
    return Mask({name: torch.rand(shapes[name].shape, generator=generator) < density for name in names})


@given(
    seed=st.integers(0, 1000), density=st.floats(0, 1), optimizer=st.sampled_from(["sgd", "adamw"]),
    decay=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
@settings(max_examples=15, deadline=None)
def test_pruned_weights_are_exactly_zero_after_every_step(
    seed: int, density: float, optimizer: Any, decay: float
) -> None:
    model, split = network(), data()
    mask = random_mask(model, seed, density)
    seen = []

    def check(state: StepState) -> None:
        for name, parameter in state.model.named_parameters():
            if name in mask:
                pruned = parameter[~mask[name]]
                assert not pruned.any()
                assert not torch.signbit(pruned).any()
        seen.append(state.step)

    training = Training(epochs=2, batch_size=32, lr=0.05, optimizer=optimizer, weight_decay=decay, precision="32")
    fit(model, split, training, seed=0, mask=mask, on_step=[check], device="cpu")
    assert seen == list(range(1, training.total_steps(split) + 1))


def test_the_dense_mask_changes_nothing() -> None:
    a, b = network(), network()
    fit(a, data(), PLAIN, seed=0, device="cpu")
    fit(b, data(), PLAIN, seed=0, mask=Mask.dense(b, ["0.weight"]), device="cpu")
    assert same(a, b)


class PowerCutError(Exception):
    """Stands in for a power cut."""


@pytest.mark.parametrize("at", [1, 4, 5, 6, 11, 14])
def test_killed_anywhere_and_resumed_gives_the_same_bits(tmp_path: Path, at: int) -> None:
    undisturbed, disturbed, state = network(dropout=0.3), network(dropout=0.3), tmp_path / "state"
    expected = fit(undisturbed, data(), PLAIN, seed=1, validate=data(20), device="cpu")

    def kill(step: StepState) -> None:
        if step.step == at:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        fit(disturbed, data(), PLAIN, seed=1, validate=data(20), state=state, on_step=[kill], device="cpu")
    again = network(seed=9, dropout=0.3)  # a new process knows nothing of the old one's weights
    if not state.exists():
        again = network(dropout=0.3)
    history = fit(again, data(), PLAIN, seed=1, validate=data(20), state=state, device="cpu")
    assert same(again, undisturbed)
    drop = ("seconds", "images_per_second")
    assert [{k: v for k, v in e.items() if k not in drop} for e in history] == [
        {k: v for k, v in e.items() if k not in drop} for e in expected
    ]


def test_a_finished_state_is_taken_as_it_is(tmp_path: Path) -> None:
    first, second = network(), network(seed=5)
    fit(first, data(), PLAIN, seed=1, state=tmp_path / "state", device="cpu")
    fit(
        second,
        data(),
        PLAIN,
        seed=1,
        state=tmp_path / "state",
        device="cpu",
        on_step=[lambda _: pytest.fail("it trained again")],
    )
    assert same(first, second)


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign"])
def test_a_useless_state_is_told_and_left_out(tmp_path: Path, damage: str) -> None:
    state, expected, found = tmp_path / "state", network(), network()
    fit(expected, data(), PLAIN, seed=1, device="cpu")
    fit(network(), data(), PLAIN, seed=2 if damage == "foreign" else 1, state=state, device="cpu")
    if damage != "foreign":
        state.write_bytes(state.read_bytes()[: 1000 if damage == "truncated" else 0])
    with pytest.warns(PrunescopeWarning, match="another training" if damage == "foreign" else "damaged"):
        fit(found, data(), PLAIN, seed=1, state=state, device="cpu")
    assert same(found, expected)


def test_stopping_and_starting_meets_the_whole_schedule() -> None:
    """Without momentum, training to step k and on from step k is training; k may lie inside an epoch."""
    training = Training(epochs=3, batch_size=16, lr=0.05, momentum=0.0, precision="32")
    whole, parts = network(), network()
    fit(whole, data(), training, seed=1, device="cpu")
    fit(parts, data(), training, seed=1, stop=7, device="cpu")
    fit(parts, data(), training, seed=1, start=7, device="cpu")
    assert same(whole, parts)


def test_order_changes_the_batches_and_nothing_else_does() -> None:
    a, b, c = network(), network(), network()
    fit(a, data(), PLAIN, seed=1, device="cpu")
    fit(b, data(), PLAIN, seed=1, order=2, device="cpu")
    torch.manual_seed(123)
    fit(c, data(), PLAIN, seed=1, device="cpu")
    assert not same(a, b)
    assert same(a, c)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    fit(network(dropout=0.5), data(), PLAIN, seed=1, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_an_infinite_loss_names_epoch_and_step() -> None:
    training = Training(epochs=3, batch_size=16, lr=1e30, precision="32", schedule="constant")
    with pytest.raises(Diverged, match=r"epoch 1, step \d.*lower lr"):
        fit(network(), data(), training, seed=0, device="cpu")


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 3), (0, 1000)])
def test_impossible_stretches_are_refused(start: int, stop: int) -> None:
    with pytest.raises(PrunescopeError, match="the schedule has 15 steps"):
        fit(network(), data(), PLAIN, seed=0, start=start, stop=stop, device="cpu")


class TwoHeads(nn.Module):
    """Like GoogLeNet: a tuple while training, logits in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.extra = nn.Linear(192, 8), nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        h = self.body(x.flatten(1)).relu()
        return (self.head(h), self.extra(h)) if self.training else self.head(h)


def test_auxiliary_heads_are_trained_with_their_weight() -> None:
    torch.manual_seed(0)
    model, split = TwoHeads(), data()
    before, captured = model.extra.weight.clone(), []
    training = Training(epochs=1, batch_size=80, lr=0.01, momentum=0.0, weight_decay=0.0, precision="32")
    fit(model, split, training, seed=0, device="cpu", on_step=[lambda s: captured.append(s.loss)])
    assert not torch.equal(model.extra.weight, before)
    torch.manual_seed(0)
    fresh = TwoHeads()
    (x, y) = next(training_batches(split, batch_size=80, seed=derive(0, "training", 0), epoch=0))
    main, extra = fresh(x)
    expected = F.cross_entropy(main, y) + 0.3 * F.cross_entropy(extra, y)
    assert torch.allclose(captured[0], expected.detach(), rtol=1e-5)
    assert 0 <= accuracy(model, split) <= 1


def test_accuracy_keeps_the_mode() -> None:
    model = network().train()
    model[1].eval()
    split = data()
    found = accuracy(model, split, batch_size=7)
    assert [module.training for module in model] == [True, False, True, True, True, True, True]
    model.eval()
    ((_, x, y),) = split.batches(1000)
    assert found == pytest.approx(float((model(x).argmax(1) == y).float().mean()))


def test_bf16_trains() -> None:
    training = Training(epochs=1, batch_size=16, lr=0.05, precision="bf16")
    model = network()
    history = fit(model, data(), training, seed=0, device="cpu")
    assert history[0]["loss"] > 0
    assert model[0].weight.dtype == torch.float32


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_killed_again_and_again_with_a_mask_inside_a_stretch(tmp_path: Path, optimizer: Any) -> None:
    """From step 3 to 13 of 15, so both ends lie inside an epoch; every run dies one step after the last one did."""
    training, options = replace(PLAIN, optimizer=optimizer), {"start": 3, "stop": 13, "order": 4, "seed": 1}
    mask = random_mask(network(), 0, 0.5)
    expected = network(dropout=0.3)
    fit(expected, data(), training, mask=mask, device="cpu", **options)  # type: ignore[arg-type]
    deaths = []

    def kill(step: StepState) -> None:
        if step.step not in deaths and len(deaths) < 12 and step.step % 5:
            deaths.append(step.step)
            raise PowerCutError

    while True:
        found = network(dropout=0.3)
        try:
            history = fit(
                found, data(), training, mask=mask, device="cpu", on_step=[kill], state=tmp_path / "s", **options
            )  # type: ignore[arg-type]
            break
        except PowerCutError:
            pass
    assert deaths == [4, 6, 7, 8, 9, 11, 12, 13]
    assert same(found, expected)
    assert [entry["step"] for entry in history] == [5, 10, 13]


def test_killed_between_epochs(tmp_path: Path) -> None:
    expected, found, state = network(), network(), tmp_path / "state"
    fit(expected, data(), PLAIN, seed=1, device="cpu")

    def cut(entry: dict[str, Any]) -> None:
        assert state.is_file()
        raise PowerCutError

    for epoch in (1, 2, 3):
        with pytest.raises(PowerCutError):
            fit(network(), data(), PLAIN, seed=1, device="cpu", state=state, on_epoch=cut)
        assert torch.load(state, weights_only=True)["step"] == 5 * epoch
    fit(found, data(), PLAIN, seed=1, device="cpu", state=state)
    assert same(found, expected)


def test_every_part_of_a_call_makes_its_state_its_own(tmp_path: Path) -> None:
    mask = random_mask(network(), 0, 0.5)
    shuffled = Mask({name: tensor.flatten().flip(0).view_as(tensor) for name, tensor in mask.items()})
    assert shuffled.kept == mask.kept
    split = data()
    relabelled = replace(split, labels=split.labels.flip(0))
    plain: dict[str, Any] = {"split": split, "training": PLAIN, "seed": 1, "mask": mask}
    fit(network(), device="cpu", state=tmp_path / "state", **plain)
    stored = (tmp_path / "state").read_bytes()
    others: list[dict[str, Any]] = [
        {"mask": shuffled}, {"mask": None}, {"split": relabelled}, {"seed": 2}, {"order": 1}, {"start": 1},
        {"stop": 14}, {"training": replace(PLAIN, lr=0.04)}, {"training": replace(PLAIN, augment=Augmentation())},
    ]  # fmt: skip
    for other in others:
        (tmp_path / "state").write_bytes(stored)
        with pytest.warns(PrunescopeWarning, match="belongs to another training"):
            fit(network(), device="cpu", state=tmp_path / "state", **{**plain, **other})
    (tmp_path / "state").write_bytes(stored)
    wider = network()
    wider[6] = nn.Linear(24, 4)
    with pytest.warns(PrunescopeWarning, match="belongs to another training"):
        fit(wider, device="cpu", state=tmp_path / "state", **{**plain, "mask": None})
    (tmp_path / "state").write_bytes(stored)
    assert len(fit(network(), device="cpu", state=tmp_path / "state", **plain)) == 3  # its own: no warning


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.95])
def test_a_flipped_byte_is_noticed_or_harmless(tmp_path: Path, part: float) -> None:
    state, expected, found = tmp_path / "state", network(), network()
    fit(expected, data(), PLAIN, seed=1, state=state, device="cpu")
    content = bytearray(state.read_bytes())
    content[int(part * len(content))] ^= 0x10
    state.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PrunescopeWarning)
        fit(found, data(), PLAIN, seed=1, state=state, device="cpu")
    assert same(found, expected)


def test_each_step_has_its_rate() -> None:
    training = replace(PLAIN, schedule="onecycle")
    rates: list[float] = []
    history = fit(
        network(), data(), training, seed=0, start=2, device="cpu",
        on_step=[lambda state: rates.append(state.optimizer.param_groups[0]["lr"])],
    )  # fmt: skip
    assert rates == [learning_rate(training, step, 15, 5) for step in range(2, 15)]
    assert [entry["lr"] for entry in history] == [rates[2], rates[7], rates[12]]
    assert [(entry["epoch"], entry["step"]) for entry in history] == [(1, 5), (2, 10), (3, 15)]


def test_the_history_counts_what_came_by() -> None:
    seen: list[tuple[int, float]] = []
    entry = fit(
        network(), data(), replace(PLAIN, epochs=1), seed=0, device="cpu", validate=data(30),
        on_step=[lambda state: seen.append((state.epoch, float(state.loss)))],
    )[0]  # fmt: skip
    assert entry["loss"] == pytest.approx(sum(loss for _, loss in seen) / 5)
    assert [epoch for epoch, _ in seen] == [0] * 5
    assert (entry["accuracy"] * 80) % 1 == pytest.approx(0)
    assert (entry["val_accuracy"] * 30) % 1 == pytest.approx(0, abs=1e-9)
    assert set(entry) == {
        "epoch", "step", "loss", "accuracy", "lr", "seconds", "images_per_second", "val_accuracy",
    }  # fmt: skip


def test_a_nan_is_placed_in_its_step() -> None:
    def poison(state: StepState) -> None:
        if state.step == 7:
            with torch.no_grad():
                state.model[6].weight[0, 0] = torch.nan  # type: ignore[index,union-attr,operator]

    with pytest.raises(Diverged, match="the loss is nan in epoch 2, step 8: try a lower lr"):
        fit(network(), data(), PLAIN, seed=0, device="cpu", on_step=[poison])
    with pytest.raises(Diverged, match="weights are no longer finite after epoch 2, step 7"):
        fit(network(), data(), PLAIN, seed=0, stop=7, device="cpu", on_step=[poison])


def test_a_diverged_epoch_leaves_no_state(tmp_path: Path) -> None:
    with pytest.raises(Diverged):
        fit(network(), data(), replace(PLAIN, lr=1e30), seed=0, device="cpu", state=tmp_path / "state")
    assert not list(tmp_path.iterdir())


class Features(nn.Module):
    """A tuple of logits and something that is no head."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(192, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        h = self.body(x.flatten(1)).relu()
        return self.head(h), h


def test_features_beside_the_logits_are_no_head() -> None:
    torch.manual_seed(0)
    model, losses = Features(), []
    (x, y) = next(training_batches(data(), batch_size=80, seed=derive(0, "training", 0), epoch=0))
    expected = F.cross_entropy(model(x)[0], y).detach()
    training = Training(epochs=1, batch_size=80, lr=0.01, precision="32")
    fit(model, data(), training, seed=0, device="cpu", on_step=[lambda state: losses.append(state.loss)])
    assert float(losses[0]) == pytest.approx(float(expected), rel=1e-5)


def test_too_few_outputs_are_refused() -> None:
    model = network()
    model[6] = nn.Linear(24, 2)
    with pytest.raises(PrunescopeError, match="the network has 2 outputs, the data 3 classes"):
        fit(model, data(), PLAIN, seed=0, device="cpu")


def test_a_schedulers_variables_do_not_make_it_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLURM_NTASKS": "4",
        "SLURM_JOB_NAME": "study",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "3",
    }.items():
        monkeypatch.setenv(name, value)
    found, expected = network(), network()
    fit(found, data(), PLAIN, seed=0, device="cpu")
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.delenv(name)
    fit(expected, data(), PLAIN, seed=0, device="cpu")
    assert same(found, expected)


@pytest.mark.parametrize("native", [True, False])
def test_auto_precision_is_what_the_device_computes(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr("prunescope.engine.train.computes_bf16", lambda device: native)
    found, expected = network(), network()
    fit(found, data(), replace(PLAIN, precision="auto"), seed=0, device="cpu")
    fit(expected, data(), replace(PLAIN, precision="bf16" if native else "32"), seed=0, device="cpu")
    assert same(found, expected)


@pytest.mark.parametrize("channels_last", [True, False])
def test_memory_format(channels_last: bool) -> None:
    model = network()
    fit(model, data(), replace(PLAIN, channels_last=channels_last, epochs=1), seed=0, device="cpu")
    weight = model[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    assert all(module.training for module in model)


def test_frozen_weights_stay() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    fit(model, data(), PLAIN, seed=0, device="cpu")
    assert torch.equal(model[0].weight, before)
