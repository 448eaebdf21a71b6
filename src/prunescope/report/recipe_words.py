"""A recipe in a sentence or two."""

from __future__ import annotations

from prunescope.pruning.recipe import Recipe
from prunescope.pruning.scope import scope_name
from prunescope.report.places import percent


def recipe_sentence(recipe: Recipe) -> str:
    """What the recipe cuts, when, and how it trains. The page escapes it.

    >>> print(recipe_sentence(Recipe("tickets")).replace(chr(160), " "))
    Recipe tickets: magnitude pruning (global) to 10 % of the weights in 6 rounds, after each its weights rewound to \
epoch 1 and retrained.
    """
    schedule = recipe.schedule
    how = _gradual if schedule.gradual else _before if schedule.before_training else _rounds
    what = f"Recipe {recipe.name}: {recipe.criterion.name} pruning ({scope_name(recipe.scope)})"
    *others, last = (percent(density) for density in schedule.each or (schedule.density,))
    reached = f"{', '.join(others)} or {last}" if others else last
    amount = f"to {reached} of the {recipe.counted}"
    return f"{what} {how(recipe, amount)}.{_exchange(recipe)}{_teacher(recipe)}"


def _rounds(recipe: Recipe, amount: str) -> str:
    weights = {
        "init": "its weights rewound to the initialisation", "none": "fine-tuned",
        "late": f"its weights rewound to {_step(recipe.rewind.at)}",
        "lr": f"its learning rate rewound to {_step(recipe.rewind.at)}",
    }[recipe.rewind.to]  # fmt: skip
    if recipe.schedule.independent:
        return f"{amount}, each time at once from the dense network, then {weights} and retrained"
    count = len(recipe.schedule.densities())
    return f"{amount} in {count} {'round' if count == 1 else 'rounds'}, after each {weights} and retrained"


def _before(recipe: Recipe, amount: str) -> str:
    return f"{amount} before training: the initialisation is cut and then trained"


def _gradual(recipe: Recipe, amount: str) -> str:
    start = {
        "init": "the initialisation", "none": "the trained weights",
        "late": f"the weights of {_step(recipe.rewind.at)}",
        "lr": f"the trained weights, the learning rate rewound to {_step(recipe.rewind.at)}",
    }[recipe.rewind.to]  # fmt: skip
    return f"{amount} while the network trains, from {start}"


def _exchange(recipe: Recipe) -> str:
    regrow = recipe.regrow
    if regrow is None:
        return ""
    others = "those with the largest gradients" if regrow.by == "gradient" else "others at random"
    share = f"{'at first ' if regrow.decay != 'none' else ''}{percent(regrow.share)}"
    return f" Meanwhile the smallest weights of every layer ({share} of them at once) make room for {others}."


def _teacher(recipe: Recipe) -> str:
    return " It also learns the dense network's answers." if recipe.distill is not None else ""


def _step(at: str) -> str:
    """`1ep` in words."""
    for mark, unit in (("ep", "epoch"), ("it", "step")):
        if at.endswith(mark):
            return f"{unit} {at.removesuffix(mark)}"
    return f"{at} of the training"
