"""Pruning while the network trains: the mask shrinks, exchanges weights, or both."""

from __future__ import annotations

import torch

from prunescope.core.mask import Mask
from prunescope.core.seeds import derive, torch_generator
from prunescope.data.split import Split
from prunescope.data.training_batches import steps_per_epoch
from prunescope.engine.masking import StepState
from prunescope.engine.training import Training
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.regrow import exchanged
from prunescope.pruning.turn import cut_round


class MovingMask:
    """The mask of one training by a recipe whose mask changes on the way (a `Sparsifier` of `engine.train.fit`).

    Cuts go by the recipe's criterion on the present weights. Where a cut and an exchange fall on one step, the cut
    comes first (GraNet).

    Args:
        mask: when training begins; of everything, with a cubic schedule.
        recipe: with its granularity fitted to the network.
        training: this training.
        number: the round; every round, and every step in it, draws anew.
        begin: density of `mask`, counted as the recipe counts: less than 1 in a network that comes pruned.

    Raises:
        PrunescopeError: the training is too short for the recipe's places in it.
    """

    def __init__(
        self, mask: Mask, recipe: Recipe, split: Split, training: Training, *, seed: int, number: int,
        begin: float = 1.0,
    ) -> None:  # fmt: skip
        self.begin = begin
        self.mask, self.recipe, self.split, self.training = mask, recipe, split, training
        self.seeds = (seed, number)
        cuts = (recipe.criterion, recipe.scope, recipe.granularity, recipe.target)
        self.identity = repr((cuts, recipe.schedule, recipe.rewind, recipe.regrow, self.seeds))
        per_epoch, total = steps_per_epoch(split, training.batch_size), training.total_steps(split)
        start = recipe.rewind.start(per_epoch, total)
        gradual, regrow = recipe.schedule.gradual, recipe.regrow
        self.cuts = recipe.schedule.stretch.pace(per_epoch, total, start) if gradual else None
        self.exchanges = None if regrow is None else regrow.stretch.pace(per_epoch, total, start)

    def update(self, state: StepState) -> bool:
        """Whether `mask` is another one after this step."""
        before = self.mask
        if self.cuts is not None and (turn := self.cuts.turn(state.step)):
            self._cut(state, self.recipe.schedule.density_at(turn / self.cuts.count, self.begin))
        if self.exchanges is not None and self.exchanges.turn(state.step):
            self._exchange(state, self.exchanges.done(state.step))
        return self.mask is not before

    def _cut(self, state: StepState, density: float) -> None:
        chosen = derive(self.seeds[0], "criterion", self.seeds[1], state.step)
        self.mask = cut_round(
            state.model, self.mask, self.recipe, density=density, split=self.split, training=self.training, seed=chosen,
            device=next(state.model.parameters()).device,
        )  # fmt: skip

    def _exchange(self, state: StepState, done: float) -> None:
        regrow = self.recipe.regrow
        assert regrow is not None
        parameters: dict[str, torch.nn.Parameter] = dict(state.model.named_parameters())
        generator = torch_generator(self.seeds[0], "regrow", self.seeds[1], state.step)
        merit = regrow.merit(parameters, self.mask, generator)
        self.mask = exchanged(self.mask, parameters, merit, regrow.share_at(done))
