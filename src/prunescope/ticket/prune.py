"""Prune one network by one recipe."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.core.mask import Mask
from prunescope.data.split import Dataset, Split
from prunescope.engine.training import Training
from prunescope.models.checkpoint import Checkpoint
from prunescope.pruning.granularity import Granularity
from prunescope.pruning.loop import rounds
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.scope import Sensitivity
from prunescope.pruning.zeros import Zeros, own_zeros
from prunescope.study.config import read_recipe, read_yaml


def prune(
    model: nn.Module,
    recipe: Recipe | Mapping[str, Any] | str | Path,
    data: Dataset | Split | None = None,
    *,
    training: Training | None = None,
    retrain: bool = True,
    zeros: Zeros = "auto",
    rewind_weights: Mapping[str, Tensor] | None = None,
    shape: tuple[int, ...] | None = None,
    seed: int = 0,
    done: Sequence[Checkpoint] = (),
    state: Callable[[int], Path] | None = None,
    on_round: Callable[[Checkpoint], None] | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    device: torch.device | str = "auto",
) -> Checkpoint:
    """Prune the trained network in `model` by one recipe; returns the last ticket, which `model` holds afterwards.

    The same as `pruning.loop.rounds`, to the same bits, without the rounds.

    Args:
        recipe: a `Recipe`; or one as in study.yaml: a mapping, YAML text, or a file (`Path`).
        data: training images for retraining and for criteria that look at data; a `Dataset` also has validation
            images, whose accuracy is measured after every epoch. None where nothing of that is needed.
        training: how to retrain, unless the recipe says so itself.
        retrain: False: only cut.
        zeros: what to do with a network that comes pruned: `keep` its zeros through cuts and retraining, let them go
            `free`, or `auto`: keep those of tensors of which more than 1 % is zero, with a warning.
        rewind_weights: what recipes that rewind go back to.
        shape: (C, H, W) of one image; without data, for what must know how channels hang together.
        done, state: for going on (`pruning.loop.rounds`).
        on_round: called with the checkpoint of every round.
        on_epoch: called with every epoch's entry of the history.

    >>> ticket = prune(nn.Linear(4, 2), {"schedule": {"density": 0.5, "kind": "one-shot"}}, retrain=False)
    >>> ticket.density
    0.5

    Raises:
        PrunescopeError: the recipe is wrong, does not go with the network, or needs what is not given.
    """
    chosen = as_recipe(recipe, training)
    split, validate = (data.train, data.val) if isinstance(data, Dataset) else (data, None)
    if split is None:
        split = _no_images(chosen, retrain, shape)
    own = training or chosen.training
    if retrain and own is None:
        raise PrunescopeError(
            f"recipe {chosen.name!r} does not say how to retrain: give it training: {{epochs: 1, ...}}, or only cut "
            "(retrain=False, --no-retrain)"
        )
    kept = own_zeros(model, zeros)
    if kept and zeros == "auto":
        warnings.warn(f"{_told(kept)}; they are taken as pruned", PrunescopeWarning, stacklevel=2)
    last = done[-1] if done else None
    for last in rounds(
        model, chosen, split, own or Training(), seed=seed, rewind_weights=rewind_weights, validate=validate,
        zeros=kept, cut_only=not retrain, done=done, state=state, on_epoch=on_epoch, device=device,
    ):  # fmt: skip
        if on_round is not None:
            on_round(last)
    assert last is not None  # a schedule has at least one round
    return last


def as_recipe(recipe: Recipe | Mapping[str, Any] | str | Path, training: Training | None = None) -> Recipe:
    """A recipe from what stands for one in `prune`; without a name it is called `recipe`."""
    if isinstance(recipe, Recipe):
        return recipe
    where = recipe.name if isinstance(recipe, Path) else "recipe"
    spec = recipe if isinstance(recipe, Mapping) else read_yaml(recipe)
    if not isinstance(spec, Mapping):
        raise PrunescopeError(f"{where}: expected a mapping with criterion, schedule ...; got {spec!r}")
    return read_recipe({"name": "recipe", **spec}, training or Training(), where)


def _no_images(recipe: Recipe, retrain: bool, shape: tuple[int, ...] | None) -> Split:
    """An empty split of that shape, where neither images nor labels are needed."""
    needs = {
        "retraining": retrain,
        f"criterion {recipe.criterion.name!r}": recipe.criterion.needs_data,
        "scope sensitivity": isinstance(recipe.scope, Sensitivity),
    }
    for what in (what for what, wanted in needs.items() if wanted):
        or_not = "; or only cut (retrain=False, --no-retrain)" if what == "retraining" else ""
        raise PrunescopeError(f"recipe {recipe.name!r}: {what} needs images and their labels: pass data{or_not}")
    looks = type(recipe.granularity).fitted is not Granularity.fitted or recipe.target in ("flops", "latency")
    if shape is None and looks:
        what = f"granularity {recipe.granularity.name!r}" if recipe.target == "units" else f"target {recipe.target}"
        raise PrunescopeError(f"recipe {recipe.name!r}: {what} must know how large images are: pass data, or a shape")
    images = torch.zeros(0, *(shape or (1, 1, 1)), dtype=torch.uint8)
    return Split(images, torch.zeros(0), np.array([], dtype=np.str_), ())


def _told(zeros: Mask) -> str:
    pruned = zeros.total - zeros.kept
    return f"the network comes with zeros: {pruned:,} of {zeros.total:,} weights in {len(zeros)} tensors"
