"""The rounds of a recipe: score, cut, rewind, retrain. A generator; whoever iterates it measures, stores, stops."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.core.seeds import derive
from prunescope.data.split import Split
from prunescope.data.training_batches import steps_per_epoch
from prunescope.engine.distillation import Teacher
from prunescope.engine.masking import Sparsifier, StepState
from prunescope.engine.train import History, fit
from prunescope.engine.training import Training
from prunescope.models.checkpoint import Checkpoint
from prunescope.pruning.during import MovingMask
from prunescope.pruning.granularity import Granularity
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.scope import Sensitivity
from prunescope.pruning.scoring import criterion_batches, cut
from prunescope.pruning.sensitivity import Scan, scan
from prunescope.pruning.zeros import Beside, joined, present, require_prunable


def first_mask(model: nn.Module, recipe: Recipe) -> Mask:
    """The mask before the first round: everything that the recipe (its granularity fitted) may prune is kept."""
    return whole_mask(model, recipe.granularity, recipe.ignore)


def whole_mask(model: nn.Module, granularity: Granularity, ignore: Sequence[str] = ()) -> Mask:
    """Everything kept, over the parameters that may be cut at this granularity."""
    return Mask.dense(model, granularity.names(model, ignore))


def cut_round(
    model: nn.Module, mask: Mask, recipe: Recipe, *, density: float, split: Split, training: Training,
    seed: int, device: torch.device | str = "cpu",
) -> Mask:  # fmt: skip
    """The next mask, by the weights that are in `model` (the end of the previous training), which stays as it is."""
    by = recipe.criterion
    batches = criterion_batches(split, training, seed, device) if by.needs_data else None
    return cut(
        model, mask, by, keep=density, scope=recipe.scope, granularity=recipe.granularity, target=recipe.target,
        shape=split.shape, batches=batches, seed=seed,
    )  # fmt: skip


def scan_round(
    model: nn.Module, mask: Mask, recipe: Recipe, split: Split, training: Training, validate: Split | None, *,
    seed: int, device: torch.device | str = "cpu", on_layer: Callable[[int, int], None] | None = None,
) -> Scan:  # fmt: skip
    """How much each layer can lose, by the accuracy on `validate`."""
    if validate is None:
        raise PrunescopeError("scope sensitivity looks at accuracy on validation images: pass `validate`")
    assert isinstance(recipe.scope, Sensitivity)
    return scan(
        model, mask, recipe.criterion, validate, options=recipe.scope, granularity=recipe.granularity,
        batches=criterion_batches(split, training, seed, device), seed=seed, device=device, on_layer=on_layer,
    )  # fmt: skip


def retrain(
    model: nn.Module,
    mask: Mask | Sparsifier,
    recipe: Recipe,
    split: Split,
    training: Training,
    *,
    rewind_weights: Mapping[str, Tensor] | None = None,
    start: int | None = None,
    order: int,
    seed: int,
    **options: Any,
) -> History:
    """Rewind `model` in place as the recipe says, and train it under the mask.

    Args:
        training: how to train (the caller resolves it: `recipe.retraining`).
        rewind_weights: state (weights and buffers) to go back to; None keeps the weights.
        start: optimiser step at which the schedule is entered; None: where the recipe rewinds to.
        order: data order; rounds pass their number.
        options: further arguments of `engine.train.fit` (state, validate, on_epoch, device ...).
    """
    if rewind_weights is not None:
        model.load_state_dict(dict(rewind_weights))
    if start is None:
        start = recipe.rewind.start(steps_per_epoch(split, training.batch_size), training.total_steps(split))
    return fit(model, split, training, seed=seed, mask=mask, start=start, order=order, **options)


def rounds(
    model: nn.Module,
    recipe: Recipe,
    split: Split,
    training: Training,
    *,
    seed: int,
    rewind_weights: Mapping[str, Tensor] | None = None,
    validate: Split | None = None,
    zeros: Mask | None = None,
    cut_only: bool = False,
    done: Sequence[Checkpoint] = (),
    state: Callable[[int], Path] | None = None,
    on_step: Sequence[Callable[[StepState], None]] = (),
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    device: torch.device | str = "auto",
) -> Iterator[Checkpoint]:
    """Prune the trained network in `model` round by round; yields the checkpoint at the end of each round.

    A recipe that cuts before training cuts `rewind_weights`, the initialisation.

    Args:
        model: the dense network at the end of its training; it holds the last ticket afterwards.
        training: how the dense network was trained; retraining is the same unless the recipe has its own.
        rewind_weights: state to rewind to (`init` and `late`): of the initialisation, or of step `recipe.rewind.at`.
            Recipes that keep the weights do not use it.
        zeros: what is pruned in the network as it comes (`pruning.zeros`): it stays so through all cuts and trainings,
            and the first round starts from what is left.
        cut_only: rounds without retraining, and so without rewinding.
        done: what the first rounds gave when this was begun before: they are not made again, nor yielded.
        state: the file for the training of a round, from which it goes on (`engine.train.fit`).
        validate, on_step, on_epoch: as for `engine.train.fit`.

    Raises:
        PrunescopeError: the recipe rewinds, and there is nothing to rewind to; without retraining, it prunes while or
            before the network trains; it does not go with the network's zeros.
    """
    _check(recipe, training, rewind_weights, cut_only)
    dense = copy.deepcopy(model.state_dict()) if recipe.schedule.independent else {}
    recipe = recipe.fitted(model, split.shape)
    first, start = first_mask(model, recipe), 1.0
    if zeros:
        first, beside = joined(first, zeros), Beside(first, zeros)
        start, on_step = present(model, first, recipe, split.shape), (beside, *on_step)
        require_prunable(recipe, start)
        rewind_weights = rewind_weights and _masked(rewind_weights, zeros)
    mask = first
    if isinstance(recipe.scope, Sensitivity):
        found = scan_round(model, mask, recipe, split, training, validate, seed=derive(seed, "criterion", 0))
        recipe = replace(recipe, scope=found.table())
    teacher = None if recipe.distill is None else Teacher(copy.deepcopy(model), recipe.distill)
    if recipe.schedule.before_training:
        model.load_state_dict(dict(rewind_weights or {}))
    for number, density in enumerate(recipe.schedule.densities(start), start=1):
        own = recipe.retraining(training, number)
        if number <= len(done):
            mask = _go_on(model, done[number - 1], own)
            continue
        chosen = derive(seed, "criterion", number)
        if recipe.schedule.independent:
            mask = first
            model.load_state_dict(dict(rewind_weights or {}) if recipe.schedule.before_training else dense)
        if not recipe.schedule.gradual:
            mask = cut_round(
                model, mask, recipe, density=start if density == 1 else density, split=split, training=training,
                seed=chosen, device=next(model.parameters()).device,
            )  # fmt: skip
        if cut_only:
            mask.apply_(model)
            yield Checkpoint.of(model, mask=mask, round=number)
            continue
        moving = MovingMask(mask, recipe, split, own, seed=seed, number=number, begin=start) if recipe.moves else None
        history = retrain(
            model, moving or mask, recipe, split, own,
            rewind_weights=None if recipe.rewind.keeps_weights else rewind_weights,
            teacher=teacher, order=number, seed=seed, state=None if state is None else state(number),
            validate=validate, on_step=on_step, on_epoch=on_epoch, device=device,
        )  # fmt: skip
        mask = mask if moving is None else moving.mask
        yield Checkpoint.of(model, mask=mask, round=number, history=history)


def _check(
    recipe: Recipe, training: Training, rewind_weights: Mapping[str, Tensor] | None, cut_only: bool
) -> None:  # fmt: skip
    if not cut_only:
        if not recipe.rewind.keeps_weights and rewind_weights is None:
            raise PrunescopeError(
                f"recipe {recipe.name!r} rewinds to {recipe.rewind.to}: pass rewind_weights (--rewind-weights), or "
                "go on from the trained weights with rewind: {to: none}"
            )
        recipe.require_fits(training)
    elif recipe.moves or recipe.schedule.before_training:
        when = "while" if recipe.moves else "before"
        raise PrunescopeError(f"recipe {recipe.name!r} prunes {when} the network trains: it cannot do without training")


def _masked(weights: Mapping[str, Tensor], mask: Mask) -> dict[str, Tensor]:
    """A copy in which what the mask prunes is zero."""
    return {name: tensor.masked_fill(~mask[name].to(tensor.device), 0.0) if name in mask else tensor
            for name, tensor in weights.items()}  # fmt: skip


def _go_on(model: nn.Module, done: Checkpoint, training: Training) -> Mask:
    """Put the network where the end of a round left it, memory layout included: it decides the last bits of sums."""
    done.into(model)
    if training.channels_last and done.history:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert done.mask is not None
    return done.mask
