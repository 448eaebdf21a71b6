"""The one training loop, on Lightning Fabric."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from lightning_fabric.plugins.precision import MixedPrecision
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.seeds import derive
from prunescope.data.split import Split
from prunescope.data.training_batches import steps_per_epoch, training_batches
from prunescope.engine.device import computes_bf16, pick_device
from prunescope.engine.distillation import Teacher
from prunescope.engine.masking import Masking, Sparsifier, StepState
from prunescope.engine.objective import Objective
from prunescope.engine.optimisation import learning_rate, make_optimizer
from prunescope.engine.sweep import logits_of
from prunescope.engine.train_state import identity, load_state, save_state
from prunescope.engine.training import Training
from prunescope.engine.untouched import fixed_rng
from prunescope.models.layers import evaluating

#: One dictionary per epoch: epoch, step, loss, accuracy, lr, seconds, images_per_second, and val_accuracy when asked.
History = tuple[dict[str, Any], ...]

#: Of an epoch, what a second run would not give again.
_TIMING = ("seconds", "images_per_second")


class Diverged(PrunescopeError):  # noqa: N818 (says what happened; every error here ends otherwise)
    """The loss is no longer finite."""


def fit(
    model: nn.Module,
    split: Split,
    training: Training,
    *,
    seed: int,
    mask: Mask | Sparsifier | None = None,
    teacher: Teacher | None = None,
    start: int = 0,
    stop: int | None = None,
    order: int = 0,
    on_step: Sequence[Callable[[StepState], None]] = (),
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    validate: Split | None = None,
    state: Path | None = None,
    device: torch.device | str = "auto",
) -> History:
    """Train `model` in place from optimiser step `start` to `stop` of the schedule that `training` describes.

    Everything random follows from `seed` and `order`; the global random state is left as it was. On a CPU, equal
    calls give equal bits (at equal thread counts), whether or not they were interrupted and resumed.

    Args:
        mask: pruned weights are exactly zero after every step, whatever momentum and weight decay do. A sparsifier's
            mask changes while training goes on; the last one is left in it.
        teacher: a trained network whose answers are learned too.
        start: schedule position and data order begin here, with fresh momentum (late rewinding).
        stop: the step to stop after; None: the end of the schedule.
        order: another data order under the same seed; rounds of a recipe pass their number.
        on_step: called after every optimiser step.
        on_epoch: called with every epoch's entry of the history.
        validate: a split whose accuracy is measured after every epoch. Never the test split.
        state: file in which the state is kept after every epoch. When it is there already, training goes on from it;
            the caller removes it. It holds weights, so it stands for this call whatever `model` starts from. A damaged
            state, or one of another training (other options, seeds, stretch, labels, mask, teacher, shapes), is left
            out with a `PrunescopeWarning`.

    Returns:
        One entry per epoch: epoch (from 1), step (done by then), loss and accuracy (means over the training batches
        as they came by), lr (of the last step), seconds, images_per_second, and val_accuracy with `validate`.
        The model is left in train mode.

    Raises:
        Diverged: the loss is NaN or infinite; the message names epoch and step (both from 1), at the epoch's end.
        PrunescopeError: `start` and `stop` do not lie in the schedule, the device cannot be used, or the network has
            fewer outputs than there are classes.
    """
    device = pick_device(str(device))
    total, per_epoch = training.total_steps(split), steps_per_epoch(split, training.batch_size)
    stop = total if stop is None else stop
    if not 0 <= start <= stop <= total:
        raise PrunescopeError(f"cannot train from step {start} to {stop}: the schedule has {total} steps")
    run = _Run(model, split, training, seed=derive(seed, "training", order), mask=mask, teacher=teacher, device=device)
    others = [*run.masking.parts(), *(() if teacher is None else teacher.parts())]
    owner = identity(training, seed, order, start, stop, split.labels, *_shapes(model), *others)
    step, history = start, list[dict[str, Any]]()
    if (stored := load_state(state, owner)) is not None:
        run.model.load_state_dict(stored["model"])
        run.optimizer.load_state_dict(stored["optimizer"])
        step, history = stored["step"], stored["history"]
        run.masking.restore(stored["mask"])
    while step < stop:
        epoch = step // per_epoch
        end = min(stop, (epoch + 1) * per_epoch)
        entry = run.epoch(epoch, step, end, total, on_step)
        step = end
        if validate is not None:
            entry["val_accuracy"] = accuracy(model, validate, device=device)
        history.append(entry)
        if state is not None:
            now = run.masking.state()
            save_state(state, run.model, run.optimizer, owner=owner, step=step, history=history, mask=now)
        if on_epoch is not None:
            on_epoch(entry)
    return tuple(history)


def lasting(history: Iterable[Mapping[str, Any]]) -> History:
    """Without how long it took, which is provenance: an artifact holds what a rerun gives again, bit for bit."""
    return tuple({key: value for key, value in entry.items() if key not in _TIMING} for entry in history)


@torch.inference_mode()
def accuracy(model: nn.Module, split: Split, *, device: torch.device | str = "cpu", batch_size: int = 512) -> float:
    """Share of images whose largest logit is their class's, in eval mode and float32; all modes are restored."""
    with evaluating(model):
        right = sum(int((logits_of(model(x)).argmax(1) == y).sum()) for _, x, y in split.batches(batch_size, device))
    return right / len(split)


class _Run:
    """Model, optimiser and masks of one call of `fit`, on their device."""

    def __init__(
        self, model: nn.Module, split: Split, training: Training, *,
        seed: int, mask: Mask | Sparsifier | None, teacher: Teacher | None, device: torch.device,
    ) -> None:  # fmt: skip
        plugins: list[Any] = [LightningEnvironment()]  # one process: not to be guessed from SLURM's or MPI's variables
        if _wants_bf16(training, device):
            plugins.append(MixedPrecision("bf16-mixed", device.type))  # by name, Fabric would announce it every time
        self.fabric = Fabric(accelerator=device.type, devices=[device.index] if device.index else 1, plugins=plugins)
        self.model, self.split, self.training, self.seed, self.device = model, split, training, seed, device
        layout = torch.channels_last if training.channels_last else torch.contiguous_format
        self.teacher = None if teacher is None else teacher.copy(device, layout)  # before masks: it may be the model
        model.to(device, memory_format=layout)  # type: ignore[call-overload]
        self.masking = Masking(model, mask)
        self.wrapped, self.optimizer = self.fabric.setup(model, make_optimizer(model, training))
        self.objective = Objective(split, training, device)
        self.masking.apply()

    def epoch(
        self, epoch: int, begin: int, end: int, total: int, on_step: Sequence[Callable[[StepState], None]]
    ) -> dict[str, Any]:
        """Steps `begin` to `end` of the schedule, all in one epoch."""
        started = time.perf_counter()
        per_epoch = steps_per_epoch(self.split, self.training.batch_size)
        losses, right, seen = [], torch.zeros((), device=self.device), 0
        batches = training_batches(
            self.split, batch_size=self.training.batch_size, seed=self.seed, epoch=epoch,
            augment=self.training.augment, skip=begin - epoch * per_epoch, device=self.device,
        )  # fmt: skip
        self.model.train()
        with fixed_rng():
            torch.manual_seed(derive(self.seed, "dropout", epoch, begin))
            for step, (x, y) in zip(range(begin, end), batches, strict=False):
                rate = learning_rate(self.training, step, total, per_epoch)
                loss, logits = self.step(x, y, rate)
                losses.append(loss)
                right += (logits.argmax(1) == y).sum()
                seen += len(y)
                state = StepState(step + 1, epoch, loss, self.model, self.optimizer)
                self.masking.follow(state)
                for function in on_step:
                    function(state)
        # One look at the losses per epoch: looking every step would make the device wait.
        found = torch.stack(losses).float().cpu()
        self.require_finite(found, epoch, begin)
        seconds = time.perf_counter() - started
        return {
            "epoch": epoch + 1, "step": end, "loss": float(found.mean()), "accuracy": float(right) / seen, "lr": rate,
            "seconds": round(seconds, 3), "images_per_second": round(seen / seconds, 1),
        }  # fmt: skip

    def step(self, x: Tensor, y: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """One optimiser step; the loss and the main logits, detached."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, logits = self.objective(self.wrapped(x), y)
        if self.teacher is not None:
            with self.fabric.autocast():
                soft = self.teacher.logits(x)
            loss = self.teacher.by(loss, logits, soft)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.optimizer.step()
        self.masking.apply()
        return loss.detach(), logits.detach()

    def require_finite(self, losses: Tensor, epoch: int, begin: int) -> None:
        """Losses of an epoch's steps from `begin` on, and the weights after the last of them."""
        wrong = (~losses.isfinite()).nonzero().flatten().tolist()
        if wrong:
            place = f"epoch {epoch + 1}, step {begin + wrong[0] + 1}"
            raise Diverged(f"the loss is {losses[wrong[0]]} in {place}: try a lower lr")
        if not bool(torch.stack([parameter.isfinite().all() for parameter in self.model.parameters()]).all()):
            place = f"epoch {epoch + 1}, step {begin + len(losses)}"
            raise Diverged(f"weights are no longer finite after {place}: try a lower lr")


def _shapes(model: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]


def _wants_bf16(training: Training, device: torch.device) -> bool:
    return training.precision == "bf16" or (training.precision == "auto" and computes_bf16(device))
