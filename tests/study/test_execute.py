"""Running a plan: everything computed once, failures contained, damage repaired, equal bits however it is run."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from samples import tiny

from prunescope.core.errors import PrunescopeError
from prunescope.models.checkpoint import Checkpoint
from prunescope.study import execute as module
from prunescope.study.config import read_study
from prunescope.study.execute import Event, execute
from prunescope.study.folder import open_folder
from prunescope.study.plan import Plan, make_plan
from prunescope.study.results import results
from prunescope.study.store import Store


def plan(root: Path, **changes: Any) -> Plan:
    made = make_plan(read_study(tiny(**changes)))
    open_folder(root, made)
    return made


def digests(root: Path) -> dict[str, str]:
    """{file: hash} of every artifact; how long things took is no part of an artifact."""
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted((root / "cells").rglob("*"))
        if file.is_file() and file.name != "provenance.json"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete tiny study."""
    root = tmp_path_factory.mktemp("finished") / "study"
    outcome = execute(plan(root), root)
    assert not outcome.failed
    return root


def test_everything_is_computed_and_nothing_twice(finished: Path) -> None:
    made = make_plan(read_study(tiny()))
    store = Store(finished)
    assert all(store.has(cell) and store.intact(cell) for cell in made.cells.values())
    again = execute(made, finished)
    assert again.computed == []
    assert len(again.cached) == len(made.cells)
    assert not list((finished / "scratch").iterdir())


def test_tickets_keep_what_their_masks_say(finished: Path) -> None:
    made = make_plan(read_study(tiny()))
    store = Store(finished)
    found = {p.role + str(p.round): Checkpoint.load(store.path(p.checkpoint)) for p in made.points if p.seed == 0}
    one, two, chance = found["ticket1"], found["ticket2"], found["random2"]
    assert one.mask is not None
    assert two.mask is not None
    assert chance.mask is not None
    assert two.mask.nested_in(one.mask)
    assert two.mask.kept == round(0.25 * two.mask.total)
    assert chance.mask.densities == two.mask.densities
    assert chance.mask != two.mask
    for checkpoint in (one, two, chance):
        assert checkpoint.mask is not None
        for name, kept in checkpoint.mask.items():
            assert not checkpoint.weights[name][~kept].any()


def test_the_rewind_point_lies_on_the_dense_training(finished: Path) -> None:
    """Training stopped at step k is the same training: its history is the beginning of the dense one's."""
    made = make_plan(read_study(tiny()))
    store = Store(finished)
    cells = {cell.label: cell for cell in made.cells.values()}
    dense = Checkpoint.load(store.path(cells["dense seed 0"]))
    early = Checkpoint.load(store.path(cells["dense seed 0 until 1ep"]))
    assert early.history == dense.history[:1]


def test_results_are_complete(finished: Path) -> None:
    found = results(finished)
    assert len(found.runs) == len(found.points) == 6
    assert found.runs["performance.top1"].between(0, 1).all()
    assert set(found.drift["role"]) == {"ticket", "random", "dense-control"}
    assert (found.drift["low"] <= found.drift["value"] + 1e-12)[found.drift["low"].notna()].all()
    assert "noise floor" in " ".join(found.problems)  # two dense seeds are one pair


def test_several_processes_give_the_same_bits(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "study"
    events: list[Event] = []
    outcome = execute(plan(root), root, workers=2, on_event=events.append)
    assert not outcome.failed
    assert digests(root) == digests(finished)
    assert {"started", "progress", "done"} <= {event.what for event in events}


@pytest.mark.parametrize("victim", ["data", "train", "prune", "retrain", "probe"])
def test_damage_is_repaired_with_a_warning_to_the_same_bits(finished: Path, victim: str) -> None:
    before = digests(finished)
    folder = sorted((finished / "cells").glob(f"{victim}-*"))[0]
    file = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-7])
    events: list[Event] = []
    outcome = execute(plan(finished), finished, on_event=events.append)
    assert outcome.computed == [folder.name]
    assert any(event.what == "warning" and "damaged" in event.message for event in events)
    assert digests(finished) == before


def test_a_diverged_training_stops_only_what_needs_it(tmp_path: Path) -> None:
    root = tmp_path / "study"
    recipes = [*tiny()["recipes"], {"name": "wild", "schedule": {"density": 0.5, "rounds": 1},
                                    "rewind": {"to": "none"}, "training": {"lr": 1e20}}]  # fmt: skip
    made = plan(root, recipes=recipes)
    outcome = execute(made, root)
    assert [made.cells[folder].label for folder in outcome.failed] == ["wild round 1 seed 0"]
    assert "lower lr" in next(iter(outcome.failed.values()))
    assert all(made.cells[folder].kind == "probe" for folder in outcome.skipped)
    found = results(root)
    assert {p.recipe for p in found.points} == {"", "late"}
    assert any("wild round 1" in problem for problem in found.problems)


def test_a_probe_that_cannot_measure_does_not_take_the_others_with_it(tmp_path: Path) -> None:
    root = tmp_path / "study"
    # A layer that is there but gives no maps: seen only when it runs.
    probes = ["performance", {"name": "gradcam", "as": "wrong", "layer": "head"}, "gradcam"]
    made = plan(root, probes=probes)
    outcome = execute(made, root)
    assert {made.cells[folder].params["probe"].get("layer") for folder in outcome.failed} == {"head"}
    done = [cell for cell in made.cells.values() if cell.kind == "probe" and Store(root).has(cell)]
    assert {cell.params["probe"]["name"] for cell in done} == {"performance", "gradcam"}


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "study"
    made = plan(root)
    room = 3

    def save(self: Checkpoint, folder: Path) -> None:
        nonlocal room
        if not room:
            (folder / "weights.safetensors").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        room -= 1
        original(self, folder)

    original = Checkpoint.save
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save)
        with pytest.raises(PrunescopeError, match="disk is full"):
            execute(made, root)
    store = Store(root)
    kept = [cell.folder for cell in made.cells.values() if store.has(cell)]
    assert len(kept) >= 3
    assert all(store.intact(folder) for folder in kept)
    outcome = execute(made, root)
    assert set(outcome.cached) >= set(kept)
    assert not outcome.failed


def test_data_that_cannot_be_read_ends_the_run(tmp_path: Path) -> None:
    root = tmp_path / "study"
    with pytest.raises(PrunescopeError, match="shapez"):
        execute(plan(root, data="shapez"), root)


def test_data_that_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "study"
    made = plan(root)
    data_cell = next(cell for cell in made.cells.values() if cell.kind == "data")
    shop = module.Workshop(root, made.study)
    shop.make([data_cell], lambda *_: None)
    facts = Store(root).path(data_cell) / "data.json"
    facts.write_text(facts.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    with pytest.raises(PrunescopeError, match="is not what this study began with"):
        module.Workshop(root, made.study).data(data_cell)


def test_the_callers_threads_and_random_state_are_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "study"
    before, state = torch.get_num_threads(), torch.get_rng_state()
    execute(plan(root, recipes=[], seeds=[0], probes=[]), root)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)
