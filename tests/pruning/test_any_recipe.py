"""Criterion x granularity x scope x schedule x rewind x regrowth: refused when it is read, or it runs and is exact."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from functools import cache
from itertools import islice, pairwise, product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_combinations import CUTS, QUICK, net
from torch import Tensor

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import torch_generator
from prunescope.data.split import Split
from prunescope.engine.train import fit
from prunescope.engine.training import Training
from prunescope.pruning.loop import rounds
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.regrow import Regrow
from prunescope.pruning.schedule import Rewind, Schedule
from prunescope.pruning.scope import SCOPES, Scope, Sensitivity, Table
from prunescope.pruning.scoring import criteria, criterion

TRAINING = Training(epochs=2, batch_size=8, lr=0.02, precision="32")
SCOPE_VALUES: dict[str, Scope] = {
    **{name: name for name in SCOPES},  # type: ignore[dict-item]
    "table": Table({"*": 0.75}),
    "sensitivity": Sensitivity(tolerance=0.5, rates=(0.25, 0.5)),
}
SCHEDULES = {
    "geometric": Schedule(density=0.5, rounds=2),
    "linear": Schedule(density=0.5, rounds=2, kind="linear"),
    "one-shot": Schedule(density=0.5, kind="one-shot"),
    "each": Schedule(kind="one-shot", each=(0.75, 0.5)),
    "cubic": Schedule(density=0.5, kind="cubic", every="25%"),
    "before": Schedule(density=0.5, kind="one-shot", when="before-training"),
}
REWINDS = {"init": Rewind("init"), "late": Rewind("late", "1it"), "lr": Rewind("lr", "1it"), "none": Rewind("none")}
REGROW = {"none": None, "rigl": Regrow(every="2it")}
GRID = (sorted(criteria), CUTS, SCOPE_VALUES, SCHEDULES, REWINDS, REGROW)


def split() -> Split:
    generator = torch_generator(0, "any recipe")
    images = torch.randint(0, 256, (16, 4, 6, 6), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(16) % 3, np.arange(16).astype(str), ("a", "b", "c"))


@cache
def weights_of(steps: int) -> dict[str, Tensor]:
    model = net()
    if steps:
        fit(model, split(), TRAINING, seed=0, stop=steps, device="cpu")
    return copy.deepcopy(model.state_dict())


def read(by: str, cuts: str, scope: str, schedule: str, rewind: str, regrow: str) -> Recipe | None:
    """None: refused, with a reason."""
    try:
        return Recipe("r", criterion(by, **QUICK.get(by, {})), SCOPE_VALUES[scope], SCHEDULES[schedule],
                      REWINDS[rewind], TRAINING, granularity=CUTS[cuts], regrow=REGROW[regrow])  # fmt: skip
    except PrunescopeError:
        return None


def check(recipe: Recipe) -> None:
    """Run it; at the end of every round: zeros where the mask says, the density asked for, nested where promised."""
    model = net()
    model.load_state_dict(weights_of(4))
    rewind = {"init": 0, "late": 1}.get(recipe.rewind.to)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a tiny network loses layers
        found = list(rounds(model, recipe, split(), TRAINING, seed=0, validate=split(), device="cpu",
                            rewind_weights=None if rewind is None else weights_of(rewind)))  # fmt: skip
    densities = recipe.schedule.densities()
    assert len(found) == len(densities)
    units = recipe.granularity.fitted(net(), (4, 6, 6))
    measured = replace(recipe, granularity=units)
    for wanted, checkpoint in zip(densities, found, strict=True):
        mask = checkpoint.mask
        assert mask is not None
        for name, kept in mask.items():
            assert (checkpoint.weights[name][~kept] == 0).all()
        reached = measured.granularity.density(net(), mask)
        assert reached == pytest.approx(wanted, abs=0.04)
        assert torch.stack([torch.isfinite(w).all() for w in checkpoint.weights.values()]).all()
    if recipe.regrow is None and not recipe.schedule.independent:
        assert all(b.mask.nested_in(a.mask) for a, b in pairwise(found))  # type: ignore[union-attr, arg-type]


@settings(max_examples=100, deadline=None)
@given(at=st.tuples(*(st.sampled_from(list(part)) for part in GRID)))
def test_what_is_not_refused_runs(at: tuple[str, ...]) -> None:
    recipe = read(*at)
    if recipe is not None:
        check(recipe)


def test_most_of_the_grid_makes_sense() -> None:
    made = [read(*at) is not None for at in islice(product(*GRID), 0, None, 97)]
    assert 0.3 < sum(made) / len(made) < 0.9
