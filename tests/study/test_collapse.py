"""Layers that a cut leaves without weights or off every path are told of when it happens, and stay in the tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from nets import little
from samples import tiny

from prunescope.models.checkpoint import Checkpoint, read_mask
from prunescope.models.density import effective_mask
from prunescope.study.collapse import in_words
from prunescope.study.config import read_study
from prunescope.study.execute import Event, execute
from prunescope.study.folder import open_folder
from prunescope.study.plan import Plan, make_plan
from prunescope.study.results import results
from prunescope.study.store import Store

#: From half of the weights to a handful of 1,128: the second cut empties layers.
RECIPE = {"name": "harsh", "schedule": {"density": 0.003, "rounds": 2, "kind": "linear"}, "rewind": {"to": "none"}}


def plan() -> Plan:
    return make_plan(read_study(tiny(recipes=[RECIPE], probes=["performance"])))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """A study whose last tickets have collapsed, and what was told while it ran."""
    root = tmp_path_factory.mktemp("collapse") / "study"
    open_folder(root, plan())
    events: list[Event] = []
    assert not execute(plan(), root, on_event=events.append).failed
    return root, events


def test_the_cut_that_empties_a_layer_is_told_of_once(ran: tuple[Path, list[Event]]) -> None:
    root, events = ran
    point = next(p for p in results(root).points if (p.role, p.round) == ("ticket", 2))
    mask = read_mask(Store(root).path(point.checkpoint))
    assert mask is not None
    empty = [name.removesuffix(".weight") for name, kept in mask.items() if not kept.any()]
    assert empty
    told = [event.message for event in events if event.what == "warning"]
    assert len(told) == 1  # not by the first cut, nor again by the control that has the ticket's densities
    assert told[0].startswith(f"harsh round 2 seed 0: {', '.join(empty)} ha")
    place = next(i for i, event in enumerate(events) if event.what == "warning")
    assert (events[place - 1].what, events[place - 1].folder) == ("done", events[place].folder)
    again: list[Event] = []
    execute(plan(), root, on_event=again.append)
    assert not [event for event in again if event.what == "warning"]


def test_the_table_of_layers_counts_what_the_checkpoints_hold(ran: tuple[Path, list[Event]]) -> None:
    found = results(ran[0])
    rows = found.layers.set_index(["checkpoint", "layer"])
    masked = [point for point in found.points if point.role != "dense"]
    assert len(found.layers) == 3 * len(masked)
    for point in masked:
        mask = Checkpoint.load(found.store.path(point.checkpoint)).mask
        assert mask is not None
        live = effective_mask(little(len(found.data["classes"]), 3), mask, (3, 16, 16))
        for name, kept in mask.items():
            row = rows.loc[point.checkpoint, name]
            assert row["total"] == kept.numel()
            assert row["kept"] == sum(kept.flatten().tolist())
            assert row["density"] == row["kept"] / row["total"]
            assert row["effective"] == sum(live[name].flatten().tolist()) / row["total"]
            assert row["dead_outputs"] == sum(not unit.any() for unit in kept)
            assert row["dead_inputs"] == sum(not kept[:, i].any() for i in range(kept.shape[1]))
    assert (rows["effective"] <= rows["density"]).all()
    assert (rows["effective"] < rows["density"]).any()


def test_stores_that_lack_effective_densities_of_layers_are_read(ran: tuple[Path, list[Event]]) -> None:
    root = ran[0]
    new = results(root).layers
    for file in (root / "cells").glob("*/checkpoint.json"):
        facts = json.loads(file.read_text())
        facts["info"].pop("effective_densities", None)
        file.write_text(json.dumps(facts))
    old = results(root).layers
    assert old["effective"].isna().all()
    assert old.drop(columns="effective").equals(new.drop(columns="effective"))
    assert np.isfinite(new["effective"]).all()


def test_words() -> None:
    assert in_words({"a.weight": "empty", "b.weight": "cut off"}) == (
        "a has no weights left; b has weights left, but none on a path from input to output"
    )
    assert in_words({f"l{i}.weight": "empty" for i in range(6)}) == "l0, l1, l2, l3 and 2 more have no weights left"
