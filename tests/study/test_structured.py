"""Channels, targets, scans and several one-shot cuts in one study; the same in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from samples import tiny
from test_recipes import execute, make_plan, open_folder, read_study, rounds

from prunescope.core.errors import PrunescopeError
from prunescope.core.seeds import derive
from prunescope.data.load import load_data
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.shrink import shrink
from prunescope.models.zoo import build_model
from prunescope.pruning.target import share_of
from prunescope.report.build import build_report
from prunescope.study.results import results
from prunescope.study.store import Store

RECIPES: list[dict[str, Any]] = [
    {"name": "scanned", "scope": {"name": "sensitivity", "tolerance": 0.5, "rates": [0.3, 0.6]},
     "schedule": {"kind": "one-shot", "each": [0.8, 0.6]}, "rewind": {"to": "none"}},
    {"name": "channels", "granularity": "channel", "schedule": {"density": 0.5, "rounds": 2}, "rewind": {"to": "none"}},
    {"name": "flops", "granularity": {"name": "channel", "members": "both"}, "target": "flops",
     "schedule": {"density": 0.4, "kind": "one-shot"}, "rewind": {"to": "lr", "at": "1ep"}},
    {"name": "table", "scope": {"name": "table", "rates": {"head": 0.1, "*": 0.4}},
     "schedule": {"density": 0.5, "kind": "one-shot"}, "rewind": {"to": "none"}},
    {"name": "shrinking", "granularity": "channel", "schedule": {"density": 0.5, "kind": "cubic", "every": "20%"},
     "rewind": {"to": "none"}},
]  # fmt: skip
STUDY = tiny(
    recipes=RECIPES,
    probes=["performance", "cost"],
    controls={"kinds": ["random", "dense", "unretrained"], "recipes": ["channels", "scanned", "shrinking"]},
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("structured") / "study"
    plan = make_plan(read_study(STUDY))
    open_folder(root, plan)
    outcome = execute(plan, root)
    assert not outcome.failed
    return root


def network(root: Path, label: str) -> torch.nn.Module:
    study, store = read_study(STUDY), Store(root)
    cells = {cell.label: cell for cell in make_plan(study).cells.values()}
    model = build_model(study.model, classes=4, channels=3, seed=derive(0, "init"))
    return Checkpoint.load(store.path(cells[label])).into(model)


@pytest.mark.parametrize("spec", RECIPES, ids=lambda spec: spec["name"])
def test_python_gives_the_study_s_bits(finished: Path, spec: dict[str, Any]) -> None:
    study, store = read_study(STUDY), Store(finished)
    recipe = next(recipe for recipe in study.recipes if recipe.name == spec["name"])
    data = load_data(study.data)
    points = [p for p in make_plan(study).points if p.recipe == recipe.name and p.role == "ticket"]
    dense = network(finished, "dense seed 0")
    made = list(rounds(dense, recipe, data.train, study.training, seed=0, validate=data.val, device="cpu"))
    assert len(made) == len(points)
    for checkpoint, point in zip(made, points, strict=True):
        stored = Checkpoint.load(store.path(point.checkpoint))
        assert checkpoint.mask == stored.mask
        assert all(torch.equal(checkpoint.weights[name], tensor) for name, tensor in stored.weights.items())


def test_each_one_shot_cut_starts_from_the_dense_network(finished: Path) -> None:
    cells = {cell.label: cell for cell in make_plan(read_study(STUDY)).cells.values()}
    for number in (1, 2):
        cut = cells[f"scanned round {number} seed 0"].parents["cut"]
        assert cut.parents["previous"].label == "dense seed 0"
        mask = Checkpoint.load(Store(finished).path(cut)).mask
        assert mask is not None
        assert mask.density == pytest.approx((0.8, 0.6)[number - 1], abs=0.01)
    controls = [p for p in make_plan(read_study(STUDY)).points if p.recipe == "scanned" and p.role == "dense-control"]
    assert [len(Checkpoint.load(Store(finished).path(p.checkpoint)).history) for p in controls] == [2, 2]


def test_a_scan_is_made_once_and_kept(finished: Path) -> None:
    scans = [cell for cell in make_plan(read_study(STUDY)).cells.values() if cell.kind == "scan"]
    assert len(scans) == 1
    found = Store(finished).json(scans[0], "scan.json")
    assert found["rates"] == [0.3, 0.6]
    assert set(found["largest"]) == set(found["accuracy"])


def test_channels_of_tickets_can_be_taken_out(finished: Path) -> None:
    shape = (3, 16, 16)
    model = network(finished, "channels round 2 seed 0").eval()
    small = shrink(model, shape)
    assert small.units - small.removed == round(0.5 * small.units)
    model = network(finished, "shrinking round 1 seed 0").eval()
    assert shrink(model, shape).removed >= shrink(model, shape).units // 2


def test_operations_are_what_the_recipe_asked_for(finished: Path) -> None:
    cells = {cell.label: cell for cell in make_plan(read_study(STUDY)).cells.values()}
    mask = Checkpoint.load(Store(finished).path(cells["flops round 1 seed 0"])).mask
    assert mask is not None
    share = share_of("flops", network(finished, "dense seed 0"), (3, 16, 16))(mask)
    assert 0.25 < share <= 0.4


@pytest.mark.slow
def test_the_report_tells_of_the_scan(finished: Path) -> None:
    page = Path(build_report(finished)).read_text()
    assert "What each layer alone can lose, weight by magnitude" in page
    table = pd.read_csv(finished / "tables" / "sensitivity.csv")
    scan = next(cell for cell in make_plan(read_study(STUDY)).cells.values() if cell.kind == "scan")
    found = Store(finished).json(scan, "scan.json")
    for layer, values in found["accuracy"].items():
        rows = table[table["layer"] == layer]
        assert rows["rate"].tolist() == found["rates"]
        assert rows["accuracy"].tolist() == pytest.approx(list(values))
        assert set(rows["largest"]) == {found["largest"][layer]}


@pytest.mark.parametrize(("recipe", "words"), [
    ({"target": "latency", "granularity": "channel"}, "use `prunescope prune`"),
    ({"target": "latency"}, "target latency goes with granularity: channel"),
    ({"target": "watts"}, r"recipes\[0\].target: input should be 'units', 'parameters'"),
    ({"scope": "sensitivity", "schedule": {"kind": "cubic"}}, "measured on a trained network before it is cut"),
    ({"schedule": {"each": [0.5, 0.2]}}, "each goes with kind: one-shot"),
    ({"schedule": {"kind": "one-shot", "each": [0.2, 0.5]}}, "falling densities"),
    ({"schedule": {"kind": "one-shot", "each": [0.5, 0]}}, "falling densities"),
    ({"scope": {"name": "table", "rates": {"conv1": 2}}}, "share that goes"),
])  # fmt: skip
def test_what_cannot_be_is_refused_when_read(recipe: dict[str, Any], words: str) -> None:
    with pytest.raises(PrunescopeError, match=words):
        read_study(tiny(recipes=[{"name": "r", **recipe}]))


def test_layers_are_counted_without_their_biases_and_norms(finished: Path) -> None:
    rows = results(finished).layers
    assert set(rows[rows["recipe"] == "channels"]["layer"]) == {"conv1.weight", "conv2.weight", "head.weight"}
