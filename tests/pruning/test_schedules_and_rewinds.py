"""Every schedule with every rewinding: refused with the reason, or run to the density that was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from test_loop import SPLIT, TRAINING, trained

from prunescope.core.errors import PrunescopeError
from prunescope.pruning.criteria.magnitude import Magnitude
from prunescope.pruning.loop import rounds
from prunescope.pruning.recipe import Recipe
from prunescope.pruning.schedule import Rewind, Schedule

SCHEDULES: dict[str, dict[str, Any]] = {
    "one-shot": {"kind": "one-shot"},
    "each": {"kind": "one-shot", "each": (0.8, 0.4)},
    "before": {"kind": "one-shot", "when": "before-training"},
    "each before": {"kind": "one-shot", "each": (0.8, 0.4), "when": "before-training"},
    "geometric": {"kind": "geometric", "rounds": 2},
    "linear": {"kind": "linear", "rounds": 2},
    "cubic": {"kind": "cubic", "every": "2it", "end": "100%"},
    "whole": {"density": 1.0},
}
REWINDS = {"init": {}, "late": {"at": "2it"}, "lr": {"at": "2it"}, "none": {}}


@pytest.mark.parametrize("to", REWINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_refused_or_run(name: str, to: str) -> None:
    def make() -> Recipe:
        schedule = Schedule(**{"density": 0.4, **SCHEDULES[name]})
        return Recipe("r", Magnitude(), schedule=schedule, rewind=Rewind(to, **REWINDS[to]))  # type: ignore[arg-type]

    if "before" in name and to != "init":
        with pytest.raises(PrunescopeError, match="is trained from its initialisation"):
            make()
        return
    recipe = make()
    origin = {"init": 0, "late": 2}.get(to)
    weights = None if origin is None else trained(origin).state_dict()
    made = list(rounds(trained(), recipe, SPLIT, TRAINING, seed=0, rewind_weights=weights, device="cpu"))
    densities = recipe.schedule.densities()
    assert len(made) == len(densities)
    for ticket, density in zip(made, densities, strict=True):
        assert ticket.mask is not None
        assert ticket.mask.kept == round(density * ticket.mask.total)
        assert all(not ticket.weights[layer][~kept].any() for layer, kept in ticket.mask.items())
