"""Which weights a cell cuts, and how much its layers could lose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from prunescope.core.configure import named
from prunescope.core.mask import Mask
from prunescope.core.seeds import derive
from prunescope.data.split import Dataset
from prunescope.engine.training import Training
from prunescope.pruning.controls import shuffled, uncut
from prunescope.pruning.granularity import granularities
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.scope import Table
from prunescope.pruning.sensitivity import Scan
from prunescope.pruning.turn import cut_round, first_mask, scan_round
from prunescope.study.cell import Cell
from prunescope.study.config import read_recipe


class Cuts:
    """The cuts of one study's cells.

    Args:
        training: how dense networks train: criteria look at batches of its size.
        device: where criteria score.
    """

    def __init__(self, data: Dataset, training: Training, device: torch.device) -> None:
        self.data, self.training, self.device = data, training, device

    def mask(self, cell: Cell, model: nn.Module, before: Mask | None, table: Mapping[str, float] | None) -> Mask:
        """The next mask of a `prune` cell, by the weights in `model`.

        Args:
            before: the mask that the network has; None: everything is kept.
            table: what a scan of its layers' sensitivity found.
        """
        recipe = self._recipe(cell, model)
        if table is not None:
            recipe = replace(recipe, scope=Table(table))
        return cut_round(
            model.to(self.device), first_mask(model, recipe) if before is None else before, recipe,
            density=cell.params["density"], split=self.data.train, training=self.training,
            seed=self._seed(cell), device=self.device,
        )  # fmt: skip

    def control(self, cell: Cell, model: nn.Module, ticket: Mask) -> Mask:
        """The mask of a control: as many units in every layer at random places, or everything."""
        if cell.params["control"] != "random":
            return uncut(ticket)
        seed, number = cell.params["seed"]
        units = named(granularities, cell.params.get("granularity", "weight"), cell.label)
        return shuffled(model, ticket, derive(seed, "random mask", number), units.fitted(model, self.data.train.shape))

    def scan(self, cell: Cell, model: nn.Module, on_layer: Any) -> Scan:
        """What each layer of a `scan` cell's network could lose, by the validation images."""
        recipe = self._recipe(cell, model)
        return scan_round(
            model.to(self.device), first_mask(model, recipe), recipe, self.data.train, self.training, self.data.val,
            seed=self._seed(cell), device=self.device, on_layer=on_layer,
        )  # fmt: skip

    def _recipe(self, cell: Cell, model: nn.Module) -> Recipe:
        """What of the recipe decides this cell's cut."""
        wanted = ("criterion", "scope", "granularity", "ignore", "target")
        spec = {key: cell.params[key] for key in wanted if key in cell.params}
        schedule = {"kind": "one-shot", "density": cell.params.get("density", 0.5)}
        return read_recipe({"name": cell.label, "schedule": schedule, "rewind": {"to": "none"}, **spec},
                           self.training, cell.label).fitted(model, self.data.train.shape)  # fmt: skip

    def _seed(self, cell: Cell) -> int:
        seed = cell.params.get("seed")
        return derive(seed[0], "criterion", seed[1]) if seed else 0
