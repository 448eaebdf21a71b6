"""A recipe is one value: equal ones are one, and impossible ones cannot be made."""

from __future__ import annotations

import pytest

from prunescope.core.errors import PrunescopeError
from prunescope.engine.training import Training
from prunescope.pruning.criteria.chance import Random
from prunescope.pruning.criteria.magnitude import Magnitude
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.schedule import Rewind, Schedule

EARLY = Schedule(0.1, kind="one-shot", when="before-training")


def test_the_default_is_the_lottery_ticket_with_late_rewinding() -> None:
    recipe = Recipe("ticket")
    assert (recipe.criterion, recipe.scope, recipe.training) == (Magnitude(), "global", None)
    assert (recipe.rewind.to, recipe.schedule.kind) == ("late", "geometric")


def test_equal_recipes_are_one() -> None:
    recipes = {Recipe("a", training=Training(epochs=3), ignore=("fc",)) for _ in range(2)}
    assert len(recipes) == 1
    assert len({*recipes, Recipe("a", criterion=Random(), training=Training(epochs=3), ignore=("fc",))}) == 2


def test_a_list_of_ignored_layers_becomes_hashable() -> None:
    assert hash(Recipe("a", ignore=["fc", "conv1"])) == hash(Recipe("a", ignore=("fc", "conv1")))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "needs a name"),
        ({"criterion": "magnitude"}, "criterion must be a Criterion"),
        ({"criterion": Magnitude}, "criterion must be a Criterion"),
        ({"scope": "tensor"}, "unknown scope 'tensor'"),
        ({"ignore": "fc"}, "ignore must be a list"),
        (
            {"epochs_per_round": (2, 2), "schedule": Schedule(rounds=3)},
            "names 2 retrainings, .* 3 rounds",
        ),
        (
            {
                "training": Training(epochs=9),
                "rewind": Rewind("late", "2ep"),
                "schedule": Schedule(rounds=2),
                "epochs_per_round": (3, 2),
            },
            "the training has 2 epochs",
        ),
        ({"schedule": EARLY, "rewind": Rewind("none")}, "rewind: {to: init}, not none"),
        ({"schedule": EARLY, "rewind": Rewind("lr")}, "rewind: {to: init}, not lr"),
        ({"schedule": EARLY}, "cut before training is trained from its initialisation.* not late"),
        ({"training": Training(epochs=2), "rewind": Rewind("late", "2ep")}, "the training has 2 epochs"),
        ({"training": Training(epochs=2), "rewind": Rewind("lr", "3ep")}, "the training has 2 epochs"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(PrunescopeError, match=message):
        Recipe(**{"name": "r", **options})  # type: ignore[arg-type]


def test_fine_tuning_may_be_shorter_than_the_default_step() -> None:
    assert Recipe("short", rewind=Rewind("none"), training=Training(epochs=0.5), schedule=Schedule(rounds=1)).name
