"""The rounds of a recipe: score, cut, rewind, retrain. A generator; whoever iterates it measures, stores, stops."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.mask import Mask
from prunescope.core.seeds import derive
from prunescope.data.split import Split
from prunescope.engine.distillation import Teacher
from prunescope.engine.masking import StepState
from prunescope.engine.training import Training
from prunescope.models.checkpoint import Checkpoint
from prunescope.pruning.during import MovingMask
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.scope import Sensitivity
from prunescope.pruning.turn import cut_round, first_mask, retrain, scan_round
from prunescope.pruning.zeros import Beside, joined, present, require_prunable


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
    options = {"validate": validate, "on_step": on_step, "on_epoch": on_epoch, "device": device}
    run = _Run(model, recipe, split, training, seed, rewind_weights, zeros, options)
    for number, density in enumerate(run.recipe.schedule.densities(run.start), start=1):
        if number <= len(done):
            run.go_on(done[number - 1], number)
            continue
        run.cut(number, density)
        if cut_only:
            run.mask.apply_(model)
        history = () if cut_only else run.retrain(number, None if state is None else state(number))
        yield Checkpoint.of(model, mask=run.mask, round=number, history=history)


class _Run:
    """One recipe on one network: the mask so far, and what every round needs."""

    def __init__(
        self, model: nn.Module, recipe: Recipe, split: Split, training: Training, seed: int,
        rewind_weights: Mapping[str, Tensor] | None, zeros: Mask | None, options: dict[str, Any],
    ) -> None:  # fmt: skip
        self.model, self.split, self.training, self.seed, self.options = model, split, training, seed, options
        self.recipe, self.weights = recipe.fitted(model, split.shape), rewind_weights
        self.dense = copy.deepcopy(model.state_dict()) if recipe.schedule.independent else {}
        self.first, self.start = first_mask(model, self.recipe), 1.0
        if zeros:
            self._keep(zeros)
        self.mask = self.first
        if isinstance(recipe.scope, Sensitivity):
            found = scan_round(
                model, self.mask, self.recipe, split, training, options["validate"], seed=derive(seed, "criterion", 0)
            )
            self.recipe = replace(self.recipe, scope=found.table())
        self.teacher = None if recipe.distill is None else Teacher(copy.deepcopy(model), recipe.distill)
        if recipe.schedule.before_training:
            self._load(self.weights)

    def go_on(self, done: Checkpoint, number: int) -> None:
        """Put the network where a round left it, memory layout included: that decides the last bits of sums."""
        done.into(self.model)
        if self.recipe.retraining(self.training, number).channels_last and done.history:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        assert done.mask is not None
        self.mask = done.mask

    def cut(self, number: int, density: float) -> None:
        """The next mask; none where the network is cut while it trains."""
        if self.recipe.schedule.independent:
            self.mask = self.first
            self._load(self.weights if self.recipe.schedule.before_training else self.dense)
        if self.recipe.schedule.gradual:
            return
        before = self.mask
        self.mask = cut_round(
            self.model, before, self.recipe, density=self.start if density == 1 else density, split=self.split,
            training=self.training, seed=derive(self.seed, "criterion", number),
            device=next(self.model.parameters()).device,
        )  # fmt: skip
        emptied = [name for name, kept in self.mask.items() if not bool(kept.any()) and bool(before[name].any())]
        if emptied:
            told = f"recipe {self.recipe.name!r}, round {number}: no weights are left in {', '.join(emptied)}"
            warnings.warn(told, PrunescopeWarning, stacklevel=4)

    def retrain(self, number: int, state: Path | None) -> tuple[dict[str, Any], ...]:
        """Training under the mask, which may change on the way."""
        own, mask = self.recipe.retraining(self.training, number), self.mask
        moving = MovingMask(
            mask, self.recipe, self.split, own, seed=self.seed, number=number, begin=self.start
        ) if self.recipe.moves else None  # fmt: skip
        history = retrain(
            self.model, moving or mask, self.recipe, self.split, own,
            rewind_weights=None if self.recipe.rewind.keeps_weights else self.weights,
            teacher=self.teacher, order=number, seed=self.seed, state=state, **self.options,
        )  # fmt: skip
        self.mask = mask if moving is None else moving.mask
        return history

    def _keep(self, zeros: Mask) -> None:
        """What is pruned in the network as it comes stays so."""
        self.first, beside = joined(self.first, zeros), Beside(self.first, zeros)
        self.start = present(self.model, self.first, self.recipe, self.split.shape)
        self.options["on_step"] = (beside, *self.options["on_step"])
        require_prunable(self.recipe, self.start)
        self.weights = self.weights and _masked(self.weights, zeros)

    def _load(self, weights: Mapping[str, Tensor] | None) -> None:
        self.model.load_state_dict(dict(weights or {}))


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
