"""Every kind of recipe is told as what it is."""

from __future__ import annotations

from typing import Any

import pytest

from prunescope.engine.distillation import Distillation
from prunescope.pruning.granularity import granularity
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.regrow import Regrow
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scope import Sensitivity
from prunescope.pruning.scoring import criterion
from prunescope.report.recipe_words import recipe_sentence

EARLY = Schedule(0.1, kind="one-shot", when="before-training")
CUBIC = Schedule(0.1, kind="cubic")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"schedule": Schedule(0.2, 3), "rewind": Rewind("late", "5%")},
         "magnitude pruning (global) to 20 % of the weights in 3 rounds, after each its weights rewound to 5% of the "
         "training and retrained."),
        ({"schedule": Schedule(0.2, kind="one-shot"), "rewind": Rewind("none"), "scope": "layer",
          "granularity": granularity("filter")},
         "magnitude pruning (layer) to 20 % of the filters in 1 round, after each fine-tuned and retrained."),
        ({"schedule": Schedule(kind="one-shot", each=(0.8, 0.5, 0.2)), "rewind": Rewind("lr", "2ep")},
         "magnitude pruning (global) to 80 %, 50 % or 20 % of the weights, each time at once from the dense network, "
         "then its learning rate rewound to epoch 2 and retrained."),
        ({"schedule": EARLY, "rewind": Rewind("init"), "criterion": criterion("snip")},
         "snip pruning (global) to 10 % of the weights before training: the initialisation is cut and then trained."),
        ({"schedule": CUBIC, "rewind": Rewind("none")},
         "magnitude pruning (global) to 10 % of the weights while the network trains, from the trained weights."),
        ({"schedule": CUBIC, "rewind": Rewind("late", "500it"), "distill": Distillation()},
         "magnitude pruning (global) to 10 % of the weights while the network trains, from the weights of step 500. It "
         "also learns the dense network's answers."),
        ({"schedule": CUBIC, "rewind": Rewind("init"), "regrow": Regrow()},
         "magnitude pruning (global) to 10 % of the weights while the network trains, from the initialisation. "
         "Meanwhile the smallest weights of every layer (at first 30 % of them at once) make room for those with the "
         "largest gradients."),
        ({"schedule": EARLY, "rewind": Rewind("init"), "regrow": Regrow("random", decay="none")},
         "magnitude pruning (global) to 10 % of the weights before training: the initialisation is cut and then "
         "trained. Meanwhile the smallest weights of every layer (30 % of them at once) make room for others at "
         "random."),
    ],
)  # fmt: skip
def test_a_recipe_is_told(options: dict[str, Any], told: str) -> None:
    assert recipe_sentence(Recipe("r", **options)).replace("\u00a0", " ") == f"Recipe r: {told}"


def test_a_scope_is_told_by_its_name() -> None:
    recipe = Recipe("r", scope=Sensitivity(), schedule=Schedule(density=0.5, kind="one-shot"))
    assert "magnitude pruning (sensitivity) to" in recipe_sentence(recipe)
