"""The parts of one round: what may be cut, the cut, the scan before it, and the training after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError
from prunescope.core.mask import Mask
from prunescope.data.split import Split
from prunescope.data.training_batches import steps_per_epoch
from prunescope.engine.masking import Sparsifier
from prunescope.engine.train import History, fit
from prunescope.engine.training import Training
from prunescope.pruning.granularity import Granularity
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.scope import Sensitivity
from prunescope.pruning.scoring import criterion_batches, cut
from prunescope.pruning.sensitivity import Scan, scan


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
