"""The plan: which cells there are, that equal ones are one, and that keys never change by accident."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from samples import tiny

from prunescope.core.errors import PrunescopeError
from prunescope.study.config import read_study
from prunescope.study.plan import make_plan
from prunescope.study.schedule import Queue

INIT = {"name": "init", "schedule": {"density": 0.25, "rounds": 2}, "rewind": {"to": "init"}}


def keys(**changes: object) -> set[str]:
    return set(make_plan(read_study(tiny(**changes))).cells)


def test_kinds_and_counts() -> None:
    plan = make_plan(read_study(tiny()))
    # 2 dense seeds + 1 rewind point; 2 rounds; at round 2 a random and a dense control; probes on 2 + 2 + 2
    # checkpoints, and gradcam of dense 1 against dense 0 for the floor.
    assert Counter(cell.kind for cell in plan.cells.values()) == {
        "data": 1, "train": 3, "prune": 4, "retrain": 4, "probe": 2 * 6 + 1,
    }  # fmt: skip
    assert Counter(point.role for point in plan.points) == {"dense": 2, "ticket": 2, "random": 1, "dense-control": 1}
    assert len(plan.floor) == 1


def test_parents_come_before_children() -> None:
    seen: set[str] = set()
    for folder, cell in make_plan(read_study(tiny())).cells.items():
        assert all(parent.folder in seen for parent in cell.parents.values())
        seen.add(folder)


def test_adding_to_a_study_keeps_what_is_there() -> None:
    base = keys()
    assert base < keys(recipes=[*tiny()["recipes"], INIT])
    assert base < keys(probes=["performance", "gradcam", "concepts"])
    assert base < keys(seeds={"dense": [0, 1, 2], "tickets": [0, 1]})
    assert base < keys(controls={"kinds": ["random", "dense", "reinit", "unretrained"], "rounds": [1, 2]})


def test_two_recipes_share_dense_networks_and_the_first_cut() -> None:
    both = make_plan(read_study(tiny(recipes=[*tiny()["recipes"], INIT], controls="none")))
    kinds = Counter(cell.kind for cell in both.cells.values())
    assert kinds["train"] == 4  # two dense, rewind points at 0 and at one epoch
    assert kinds["prune"] == 3  # the first cut is the same


def test_where_data_lies_and_how_cells_run_is_not_in_a_key() -> None:
    data = {**tiny()["data"], "cache": "/elsewhere"}
    assert keys() == keys(data=data, execution={"threads": 3, "device": "cuda"})


@pytest.mark.parametrize(
    "change",
    [
        {"training": {**tiny()["training"], "lr": 0.06}},
        {"model": "small_cnn"},
        {"data": {**tiny()["data"], "size": 17}},
    ],
)
def test_what_matters_changes_every_key_after_it(change: dict[str, object]) -> None:
    before, after = keys(), keys(**change)
    assert {folder for folder in before & after if not folder.startswith("data")} == set()


def test_a_weights_file_counts_by_its_content(tmp_path: Path) -> None:
    found = []
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        save_file({"w": torch.full((2,), value)}, tmp_path / f"{name}.safetensors")
        found.append(keys(model={"name": "small_cnn", "weights": str(tmp_path / f"{name}.safetensors")}))
    assert found[0] == found[1] != found[2]
    with pytest.raises(PrunescopeError, match="no file at"):
        keys(model={"name": "small_cnn", "weights": str(tmp_path / "missing.safetensors")})


def test_controls_without_rewinding_train_as_long_as_their_ticket() -> None:
    recipe = {"name": "tune", "schedule": {"density": 0.25, "rounds": 3}, "rewind": {"to": "none"}}
    plan = make_plan(read_study(tiny(recipes=[recipe], controls={"kinds": ["dense"], "rounds": [3]})))
    control = next(cell for cell in plan.cells.values() if cell.params.get("role") == "dense-control")
    assert control.params["times"] == 3


def test_rounds_of_their_own_lengths_and_the_control_that_trains_as_long() -> None:
    recipe = {"name": "tune", "schedule": {"density": 0.25, "rounds": 3}, "rewind": {"to": "none"},
              "epochs_per_round": [1, 1, 4]}  # fmt: skip
    study = read_study(tiny(recipes=[recipe], controls={"kinds": ["dense"], "rounds": [2, 3]}))
    assert read_study(study.as_mapping()) == study
    trained = [cell for cell in make_plan(study).cells.values() if cell.kind == "retrain"]
    lengths = {cell.label: cell.params["training"]["epochs"] for cell in trained if "role" not in cell.params}
    assert lengths == {"tune round 1 seed 0": 1, "tune round 2 seed 0": 1, "tune round 3 seed 0": 4}
    assert [cell.params["epochs"] for cell in trained if "role" in cell.params] == [[1, 1], [1, 1, 4]]


def test_a_taught_recipe_has_its_dense_network_for_a_teacher() -> None:
    recipe = {**tiny()["recipes"][0], "name": "taught", "distill": {"temperature": 2}}
    study = read_study(tiny(recipes=[*tiny()["recipes"], recipe], seeds=[0, 1]))
    assert read_study(study.as_mapping()) == study
    cells = make_plan(study).cells
    assert keys(seeds=[0, 1]) < set(cells)
    taught = [cell for cell in cells.values() if "teacher" in cell.parents]
    assert [cell.label for cell in taught] == [f"taught round {n} seed {s}" for s in (0, 1) for n in (1, 2)]
    assert [cell.parents["teacher"].label for cell in taught] == [f"dense seed {s}" for s in (0, 0, 1, 1)]
    assert {str(cell.params["distill"]) for cell in taught} == {"{'temperature': 2.0}"}


def test_before_training_the_cut_is_of_the_initialisation() -> None:
    recipe = {"name": "snip", "criterion": "snip", "rewind": {"to": "init"},
              "schedule": {"density": 0.25, "kind": "one-shot", "when": "before-training"}}  # fmt: skip
    study = read_study(tiny(recipes=[recipe], controls=["unretrained", "random", "dense", "reinit"]))
    assert read_study(study.as_mapping()) == study
    plan = make_plan(study)
    cells = {cell.label: cell for cell in plan.cells.values()}
    start = cells["dense seed 0 until 0it"]
    assert cells["cut to 25.0% seed 0"].parents["previous"] is start
    assert cells["snip round 1 seed 0"].parents["rewind"] is start
    tickets = [point for point in plan.points if point.role != "dense"]
    assert {point.reference for point in tickets} == {cells["dense seed 0"].folder}
    assert Counter(p.role for p in tickets) == dict.fromkeys(["ticket", "random", "dense-control", "reinit",
                                                              "unretrained"], 1)  # fmt: skip


CUBIC = {"name": "cubic", "schedule": {"kind": "cubic", "density": 0.25, "every": "10%"}, "rewind": {"to": "none"}}
RIGL = {"name": "rigl", "criterion": "random", "scope": "erk", "rewind": {"to": "init"}, "regrow": {"every": "10%"},
        "schedule": {"density": 0.25, "kind": "one-shot", "when": "before-training"}}  # fmt: skip
EVERY = ["unretrained", "random", "dense", "reinit"]


@pytest.mark.parametrize(("rewind", "start"), [("none", ""), ("init", " until 0it"), ("late", " until 1ep")])
def test_a_gradual_recipe_is_one_training_and_controls_have_its_last_mask(rewind: str, start: str) -> None:
    study = read_study(tiny(recipes=[{**CUBIC, "rewind": {"to": rewind}}], controls=EVERY))
    assert read_study(study.as_mapping()) == study
    plan = make_plan(study)
    cells = {cell.label: cell for cell in plan.cells.values()}
    ticket = cells["cubic round 1 seed 0"]
    assert ticket.parents["cut"] is cells[f"dense seed 0{start}"]
    assert set(ticket.params["moving"]) == {"schedule"}  # the rest is at its default
    assert cells["random mask at 25.0% seed 0"].parents["ticket"] is ticket
    assert cells["cubic reinit round 1 seed 0"].parents["cut"] is ticket
    assert "moving" not in cells["cubic random round 1 seed 0"].params
    roles = {point.role: point for point in plan.points if point.role != "dense"}
    assert {point.density for point in roles.values()} == {0.25}
    assert roles["unretrained"].checkpoint == cells["cut to 25.0% seed 0"].folder
    assert cells["cut to 25.0% seed 0"].parents["previous"] is cells["dense seed 0"]


def test_what_decides_how_a_mask_moves_is_in_the_key_and_nothing_else_is() -> None:
    def key(recipe: dict[str, object]) -> str:
        plan = make_plan(read_study(tiny(recipes=[recipe], controls="none")))
        return next(point.checkpoint for point in plan.points if point.role == "ticket")

    schedule: dict[str, object] = dict(CUBIC["schedule"])  # type: ignore[call-overload]
    assert key(CUBIC) == key({**CUBIC, "name": "other"})
    others: list[dict[str, object]] = [
        CUBIC, RIGL, {**CUBIC, "scope": "layer"}, {**CUBIC, "criterion": "snip"}, {**CUBIC, "ignore": ["head"]},
        {**CUBIC, "granularity": "filter"}, {**CUBIC, "schedule": {**schedule, "end": "60%"}},
        {**CUBIC, "schedule": {**schedule, "density": 0.2}}, {**CUBIC, "regrow": {"every": "10%"}},
        {**RIGL, "regrow": {"every": "20%"}}, {**RIGL, "regrow": None},
    ]  # fmt: skip
    assert len({key(recipe) for recipe in others}) == len(others)


def test_a_regrowing_recipe_shares_its_cut_with_one_that_does_not() -> None:
    fixed = {**RIGL, "name": "fixed", "regrow": None}
    study = read_study(tiny(recipes=[RIGL, fixed], controls=EVERY))
    plan = make_plan(study)
    cells = {cell.label: cell for cell in plan.cells.values()}
    assert cells["rigl round 1 seed 0"].parents["cut"] is cells["fixed round 1 seed 0"].parents["cut"]
    assert cells["rigl round 1 seed 0"].params["moving"] == {"regrow": {"every": "10%"}}
    assert cells["random mask at 25.0% seed 0"].parents["ticket"] is cells["rigl round 1 seed 0"]
    assert read_study(study.as_mapping()) == study


def test_a_scale_is_fitted_on_the_first_dense_network_and_all_others_wait_for_it() -> None:
    plan = make_plan(read_study(tiny(probes=["performance", "mis", {"name": "mis", "as": "max", "pool": "max"}])))
    for key in ("mis", "max"):
        folders = [point.probes[key] for point in plan.points]
        first, *others = (plan.cells[folder] for folder in folders)
        assert (plan.points[0].role, plan.points[0].seed) == ("dense", 0)
        assert "dense" not in first.parents
        assert len(others) == 5
        assert all(cell.parents["dense"] is first for cell in others)
    assert {point.probes["mis"] for point in plan.floor} < {point.probes["mis"] for point in plan.points}


def test_queue_hands_out_everything_once_and_parents_first() -> None:
    plan = make_plan(read_study(tiny()))
    queue, seen = Queue(plan, set()), []
    while task := queue.take():
        for cell in task:
            assert all(parent.folder in seen for parent in cell.parents.values())
        queue.finish(task)
        seen += [cell.folder for cell in task]
    assert len(queue) == 0
    assert sorted(seen) == sorted(plan.cells)


def test_probes_of_one_checkpoint_share_a_task() -> None:
    plan = make_plan(read_study(tiny()))
    queue, tasks = Queue(plan, set()), []
    while task := queue.take():
        tasks.append(task)
        queue.finish(task)
    shared = [task for task in tasks if len(task) > 1]
    # Two tickets, two controls, and dense 1, whose predictions are measured with its maps for the floor.
    assert len(shared) == 5
    for task in shared:
        assert len({cell.parents["checkpoint"].folder for cell in task}) == 1


def test_a_failed_cell_takes_only_its_descendants() -> None:
    plan = make_plan(read_study(tiny()))
    queue = Queue(plan, set())
    queue.finish(queue.take())  # the data
    failed = next(cell for cell in plan.cells.values() if cell.label == "dense seed 0")
    skipped = {cell.folder for cell in queue.fail(failed)}
    done = set()
    while task := queue.take():
        queue.finish(task)
        done |= {cell.folder for cell in task}
    assert len(queue) == 0
    assert done.isdisjoint(skipped)
    assert any(plan.cells[folder].label == "dense seed 1" for folder in done)


def test_keys_are_pinned() -> None:
    """A change here orphans every stored study: raise FORMAT on purpose, never by accident."""
    cells = make_plan(read_study(tiny())).cells.values()
    assert {cell.label: cell.folder for cell in cells if cell.label in PINNED} == PINNED


PINNED = {
    "data": "data-afbee7a0deb72fa0",
    "dense seed 0": "train-60ff16e6949d0691",
    "cut to 50.0% seed 0": "prune-eef97a44b0a3f07c",
    "dense seed 0 until 1ep": "train-91b87b094370476f",
    "late round 1 seed 0": "retrain-e4f8b97d5c93e6a7",
    "gradcam of late round 2 seed 0": "probe-ebd5a4f74bc41e1b",
    "random mask at 25.0% seed 0": "prune-e35ba8e7a1a52ed0",
}
