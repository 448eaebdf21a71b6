"""Every way to cut, to train and to regrow, in one study from plan to report, and the same in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from samples import tiny
from test_execute import digests

from prunescope.core.seeds import derive
from prunescope.data.load import load_data
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.zoo import build_model
from prunescope.pruning.loop import rounds
from prunescope.report.build import build_report
from prunescope.study import work
from prunescope.study.config import read_study
from prunescope.study.execute import execute
from prunescope.study.folder import open_folder
from prunescope.study.plan import Plan, make_plan
from prunescope.study.results import results
from prunescope.study.store import Store

BEFORE = {"density": 0.25, "kind": "one-shot", "when": "before-training"}
CUBIC = {"density": 0.25, "kind": "cubic", "every": "10%"}
RECIPES: list[dict[str, Any]] = [
    {"name": "whole", "schedule": {"density": 1}, "rewind": {"to": "init"}},
    {"name": "snip", "criterion": "snip", "schedule": BEFORE, "rewind": {"to": "init"}},
    {"name": "cubic", "schedule": CUBIC, "rewind": {"to": "none"}},
    {"name": "channels", "schedule": CUBIC, "rewind": {"to": "none"}, "granularity": "channel"},
    {"name": "cubic-late", "schedule": {**CUBIC, "begin": "1ep", "end": "90%"}, "scope": "erk", "criterion": "taylor"},
    {"name": "rigl", "criterion": "random", "scope": "erk", "schedule": BEFORE, "rewind": {"to": "init"},
     "regrow": {"every": "10%"}},
    {"name": "set", "criterion": "random", "scope": "erk", "schedule": BEFORE, "rewind": {"to": "init"},
     "regrow": {"by": "random", "decay": "none", "every": "4it", "until": "100%"}},
    {"name": "granet", "schedule": CUBIC, "rewind": {"to": "init"}, "regrow": {"share": 0.5, "every": "10%"}},
    {"name": "taught", "schedule": {"density": 0.25, "rounds": 2}, "rewind": {"to": "none"}, "distill": {},
     "epochs_per_round": [1, 2],
     "training": {"optimizer": "adam", "lr": 0.01, "schedule": "exponential", "gamma": 0.5}},
    {"name": "steps", "schedule": {"density": 0.25, "rounds": 2}, "rewind": {"to": "none"}, "regrow": {"every": "10%"}},
]  # fmt: skip
CONTROLLED = ["cubic", "channels", "rigl", "snip", "taught"]
STUDY = tiny(
    recipes=RECIPES, probes=["performance", "gradcam"],
    controls={"kinds": ["random", "dense", "reinit", "unretrained"], "recipes": CONTROLLED},
)  # fmt: skip


def opened(root: Path) -> Plan:
    plan = make_plan(read_study(STUDY))
    open_folder(root, plan)
    return plan


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, run."""
    root = tmp_path_factory.mktemp("recipes") / "study"
    outcome = execute(opened(root), root)
    assert not outcome.failed
    return root


def tickets(root: Path, role: str = "ticket") -> dict[tuple[str, int], Checkpoint]:
    plan, store = make_plan(read_study(STUDY)), Store(root)
    points = [point for point in plan.points if point.role == role]
    return {(point.recipe, point.round): Checkpoint.load(store.path(point.checkpoint)) for point in points}


def test_every_recipe_gives_its_points_at_its_densities(finished: Path) -> None:
    found = tickets(finished)
    two = ("taught", "steps")
    assert set(found) == {(r["name"], n) for r in RECIPES for n in ((1, 2) if r["name"] in two else (1,))}
    for (name, number), checkpoint in found.items():
        density = 1.0 if name == "whole" else 0.5 if name in two and number == 1 else 0.25
        assert checkpoint.mask is not None
        if name == "channels":  # a share of the channels, not of the weights
            assert 0.05 < checkpoint.mask.density < 0.4
        else:  # in scope erk every layer is rounded for itself
            assert checkpoint.mask.kept == pytest.approx(density * checkpoint.mask.total, abs=2), name
        for layer, kept in checkpoint.mask.items():
            assert not checkpoint.weights[layer][~kept].any()
    assert [len(found["taught", number].history) for number in (1, 2)] == [1, 2]


def test_regrown_masks_are_others_than_the_cuts(finished: Path) -> None:
    plan, store, found = make_plan(read_study(STUDY)), Store(finished), tickets(finished)
    cells = {cell.label: cell for cell in plan.cells.values()}
    for name in ("rigl", "set"):
        first = Checkpoint.load(store.path(cells[f"{name} round 1 seed 0"].parents["cut"])).mask
        last = found[name, 1].mask
        assert first is not None
        assert last is not None
        assert first.densities == last.densities
        assert not last.nested_in(first)


@pytest.mark.parametrize("role", ["random", "reinit"])
def test_controls_have_the_tickets_counts(finished: Path, role: str) -> None:
    found, controls = tickets(finished), tickets(finished, role)
    assert {name for name, _ in controls} == set(CONTROLLED)
    for place, control in controls.items():
        ticket = found[place].mask
        assert ticket is not None
        assert control.mask is not None
        assert control.mask.densities == ticket.densities
        assert (control.mask == ticket) == (role == "reinit")


def test_the_dense_control_trains_as_long_as_all_rounds(finished: Path) -> None:
    controls = tickets(finished, "dense-control")
    assert [len(controls["taught", number].history) for number in (1, 2)] == [1, 3]
    assert all(control.density == 1 for control in controls.values())


@pytest.mark.slow
def test_the_report_builds_and_has_every_point(finished: Path) -> None:
    found = results(finished)
    assert not [problem for problem in found.problems if "noise floor" not in problem]
    targets = found.runs[found.runs["role"] == "ticket"].groupby("recipe")["target"].min().to_dict()
    assert targets == {recipe["name"]: 1.0 if recipe["name"] == "whole" else 0.25 for recipe in RECIPES}
    page = build_report(finished)
    assert Path(page).stat().st_size > 10_000


@pytest.mark.parametrize("spec", RECIPES, ids=lambda spec: spec["name"])
def test_python_gives_the_study_s_bits(finished: Path, spec: dict[str, Any]) -> None:
    study, store = read_study(STUDY), Store(finished)
    recipe = next(recipe for recipe in study.recipes if recipe.name == spec["name"])
    cells = {cell.label: cell for cell in make_plan(study).cells.values()}
    data = load_data(study.data)

    def network(label: str) -> torch.nn.Module:
        model = build_model(study.model, classes=len(data.classes), channels=3, seed=derive(0, "init"))
        return Checkpoint.load(store.path(cells[label])).into(model)

    places = {"init": "dense seed 0 until 0it", "late": "dense seed 0 until 1ep"}
    origin = places.get(recipe.rewind.to)
    weights = None if origin is None else network(origin).state_dict()
    made = rounds(
        network("dense seed 0"), recipe, data.train, study.training, seed=0, rewind_weights=weights, device="cpu"
    )
    for checkpoint in made:
        stored = tickets(finished)[recipe.name, checkpoint.round]
        assert checkpoint.mask == stored.mask
        assert all(torch.equal(checkpoint.weights[name], tensor) for name, tensor in stored.weights.items())


class PowerCutError(BaseException):
    """Stands in for a power cut: nothing in the study may catch it."""


@pytest.mark.slow
def test_killed_in_every_retraining_and_run_again_gives_the_same_bits(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "study"
    killed: set[str] = set()
    original = work.Workshop._fit

    def dying(self: Any, cell: Any, model: Any, training: Any, data: Any, progress: Any, **options: Any) -> Any:
        def once(*place: Any) -> None:
            if cell.kind == "retrain" and cell.folder not in killed:
                killed.add(cell.folder)
                raise PowerCutError
            progress(*place)

        return original(self, cell, model, training, data, once, **options)

    monkeypatch.setattr(work.Workshop, "_fit", dying)
    plan = opened(root)
    for _ in range(len(plan.cells)):
        try:
            outcome = execute(plan, root)
            break
        except PowerCutError:
            continue
    assert not outcome.failed
    assert len(killed) == sum(cell.kind == "retrain" for cell in plan.cells.values())
    assert digests(root) == digests(finished)
