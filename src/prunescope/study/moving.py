"""The mask of a cell that is pruned while it trains."""

from __future__ import annotations

from torch import nn

from prunescope.core.mask import Mask
from prunescope.data.split import Split
from prunescope.engine.training import Training
from prunescope.pruning.during import MovingMask
from prunescope.pruning.turn import first_mask
from prunescope.study.cell import Cell
from prunescope.study.config import read_recipe


def moving_mask(cell: Cell, model: nn.Module, mask: Mask | None, training: Training, split: Split) -> MovingMask | None:
    """The mask that changes in the training of a `retrain` cell; None where it does not.

    Args:
        mask: what the training begins with; None: everything is kept.
    """
    params = cell.params
    if "moving" not in params:
        return None
    recipe = read_recipe({"name": cell.label, "rewind": params["rewind"], **params["moving"]}, training, cell.label)
    recipe = recipe.fitted(model, split.shape)
    first = first_mask(model, recipe) if mask is None else mask
    return MovingMask(first, recipe, split, training, seed=params["seed"], number=params["round"])
