"""`prunescope car`: tables of a network's units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import refused
from safetensors.torch import save_file

from prunescope.core.errors import PrunescopeError
from prunescope.data.load import load_data
from prunescope.engine.ablation.answers import Effort
from prunescope.engine.training import Training
from prunescope.models.weights import load_weights, read_weights
from prunescope.models.zoo import build_model
from prunescope.probes.car import car
from prunescope.pruning.compare import compare_removals, fine_tuning
from prunescope.ticket.contest import RATE, tables

DATA = "{name: shapes, size: 16, train: 40, val: 24, test: 32}"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    save_file(build_model("small_cnn", classes=4, channels=3, seed=0).state_dict(), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_the_tables_are_those_of_the_function(prunescope: Any, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "units"
    ran = prunescope("car", "--model", "small_cnn", "--weights", weights, "--data", DATA, "--out", out)
    assert ran.code == 0, ran.err
    assert "matter:" in ran.err
    assert "CAR of" in ran.out
    found = car(build_model("small_cnn", classes=4, channels=3, seed=0), load_data({
        "name": "shapes", "size": 16, "train": 40, "val": 24, "test": 32}).test)  # fmt: skip
    units, classes = pd.read_csv(out / "units.csv"), pd.read_csv(out / "classes.csv")
    assert list(zip(units["layer"], units["channel"], strict=True)) == list(found.units)
    assert units["car"].to_numpy() == pytest.approx(found.reductions.car)
    assert units.sort_values("place").index.tolist() == found.ranking.order.tolist()
    assert np.allclose(classes.iloc[:, 2:], found.reductions.class_car)
    facts = json.loads((out / "car.json").read_text())
    assert facts["images"] == 32
    assert facts["units"] == len(units)


def test_layers_and_images_can_be_chosen(prunescope: Any, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "some"
    given = ("--model", "small_cnn", "--weights", weights, "--data", DATA, "--layer", "features.conv2", "--images", "9")
    ran = prunescope("car", *given, "--precision", "bf16", "--screen", "--split", "val", "--out", out)
    assert ran.code == 0, ran.err
    assert set(pd.read_csv(out / "units.csv")["layer"]) == {"features.conv2"}
    assert json.loads((out / "car.json").read_text())["images"] == 9
    assert "left out by the screen" in ran.err
    refused(prunescope("car", *given, "--out", out), "is there already")


def test_what_takes_a_units_place_can_be_chosen(prunescope: Any, weights: Path, tmp_path: Path) -> None:
    given = ("--model", "small_cnn", "--weights", weights, "--data", DATA)
    ran = prunescope("car", *given, "--removal", "mean", "--out", tmp_path / "mean")
    assert ran.code == 0, ran.err
    assert "its mean over these images" in " ".join(ran.err.split())
    data = load_data({"name": "shapes", "size": 16, "train": 40, "val": 24, "test": 32})
    found = car(build_model("small_cnn", classes=4, channels=3, seed=0), data.test, effort=Effort(removal="mean"))
    units = pd.read_csv(tmp_path / "mean" / "units.csv")
    assert units["mean_drop"].to_numpy() == pytest.approx(found.reductions.mean_drop, abs=1e-6)
    assert json.loads((tmp_path / "mean" / "car.json").read_text())["removal"] == "mean"
    refused(prunescope("car", *given, "--removal", "mean", "--screen"), "removal 'mean' is computed in full")
    refused(prunescope("car", *given, "--removal", "men"), "removal", "did you mean")


def test_a_network_that_cannot_be_traced_is_run_with_hooks(prunescope: Any, tmp_path: Path) -> None:
    name = "tests.ticket.own_nets:branching"
    save_file(build_model(name, classes=4, channels=3, seed=0).state_dict(), tmp_path / "own.safetensors")
    given = ("--model", name, "--weights", tmp_path / "own.safetensors", "--data", DATA)
    ran = prunescope("car", *given, "--images", "9", "--out", tmp_path / "units")
    assert ran.code == 0, ran.err
    assert "full forward passes with hooks, 9 for each image" in " ".join(ran.err.split())
    assert len(pd.read_csv(tmp_path / "units" / "units.csv")) == 9


def test_bad_input(prunescope: Any, weights: Path, tmp_path: Path) -> None:
    given = ("--model", "small_cnn", "--weights", weights, "--data", DATA)
    refused(prunescope("car", *given, "--layer", "features.conv9"), "features.conv9", "did you mean")
    refused(prunescope("car", *given, "--layer", "features.relu1"), "'features.relu1' is a ReLU: units are outputs of")
    refused(prunescope("car", *given, "--precision", "16"), "precision")
    refused(prunescope("car", *given, "--split", "training"), "split")
    refused(prunescope("car", "--model", "small_cnn", "--weights", tmp_path / "no", "--data", DATA), "no")


def test_the_page_and_what_filters_see(prunescope: Any, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "seen"
    given = ("--model", "small_cnn", "--weights", weights, "--data", DATA, "--layer", "features.conv1")
    ran = prunescope("car", *given, "--look", "3", "--out", out)
    assert ran.code == 0, ran.err
    assert "index.html" in ran.err
    assert json.loads((out / "car.json").read_text())["look"]["patches"] == 3
    units, sees = pd.read_csv(out / "units.csv"), pd.read_csv(out / "sees.csv")
    assert units["channel"].tolist() == sees["channel"].tolist()
    page = (out / "index.html").read_bytes()
    (out / "index.html").unlink()
    ran = prunescope("report", out)
    assert ran.code == 0, ran.err
    assert ran.out.strip().endswith("index.html")
    assert (out / "index.html").read_bytes() == page
    (out / "units.csv").unlink()
    refused(prunescope("report", out), "has no units.csv")


def test_without_a_look(prunescope: Any, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("--model", "small_cnn", "--weights", weights, "--data", DATA, "--layer", "features.conv1")
    plain = tmp_path / "plain"
    assert prunescope("car", *given, "--look", "0", "--out", plain).code == 0
    assert not (plain / "sees.csv").exists()
    assert "not looked at (not asked for)" in (plain / "index.html").read_text()

    def fails(*_: Any, **__: Any) -> None:
        raise PrunescopeError("layers that nobody can look at")

    monkeypatch.setattr("prunescope.ticket.sees.look", fails)
    ran = prunescope("car", *given, "--out", tmp_path / "unseen")
    assert ran.code == 0, ran.err
    assert "layers that nobody can look at" in ran.err
    assert (tmp_path / "unseen" / "units.csv").exists()
    assert "layers that nobody can look at" in (tmp_path / "unseen" / "index.html").read_text()


def test_orders_of_removal_are_compared_as_the_function_does(prunescope: Any, weights: Path, tmp_path: Path) -> None:
    out, layer = tmp_path / "compared", "features.conv1"
    given = ("--model", "small_cnn", "--weights", weights, "--data", DATA, "--layer", layer, "--split", "val")
    ran = prunescope("car", *given, "--compare", "l1, car-one-shot", "--fine-tune", "0.5", "--out", out)
    assert ran.code == 0, ran.err
    assert "features.conv1 by l1:" in ran.err
    assert "fine-tuned" in ran.err
    data = load_data({"name": "shapes", "size": 16, "train": 40, "val": 24, "test": 32})
    model = build_model("small_cnn", classes=4, channels=3, seed=0)
    load_weights(model, read_weights(weights), where="weights")
    tune = fine_tuning(data.train, Training(epochs=0.5, lr=RATE))
    found = compare_removals(model, data.val, data.test, [layer], methods=["l1", "car-one-shot"], fine_tune=tune)
    for name, table in (("orders.csv", found.orders()), ("curves.csv", found.curves())):
        pd.testing.assert_frame_equal(pd.read_csv(out / name), table)
    kinds = {layer: pd.read_csv(out / "sees.csv")["colour_selective"].fillna(0).to_numpy(dtype=bool)}
    pd.testing.assert_frame_equal(pd.read_csv(out / "enrichment.csv"), found.enrichment(kinds))
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "car-one-shot" in page
    assert json.loads((out / "car.json").read_text())["compare"] == {
        "methods": ["l1", "car-one-shot"], "report_split": "test", "report_images": 32, "fine_tune_epochs": 0.5,
    }  # fmt: skip
    assert "chose by 24 val images; accuracy along every order is that on 32 test images" in page
    assert "trained for 0.5 epochs on training images" in page
    assert set(tables(found)) == {"orders.csv", "curves.csv"}  # nobody looked


def test_bad_comparisons_are_refused_before_anything_runs(prunescope: Any, weights: Path) -> None:
    given = ("--model", "small_cnn", "--weights", weights, "--data", DATA)
    refused(prunescope("car", *given, "--compare", "all"), "would both choose and report", "--split val")
    refused(prunescope("car", *given, "--compare", "car-gready", "--split", "val"), "did you mean 'car-greedy'")
    refused(prunescope("car", *given, "--compare", "l1", "--report-split", "tests"), "report split")
    trained_on = ("--compare", "l1", "--report-split", "train", "--fine-tune", "1")
    refused(prunescope("car", *given, *trained_on), "fine-tuning trains on the split train", "--report-split val")
    refused(prunescope("car", *given, *trained_on, "--split", "val"), "--report-split test, or leave --fine-tune at 0")
    meant = ("--compare", "l1", "--split", "val", "--removal", "mean")
    refused(prunescope("car", *given, *meant), "with removal 'zero' only; got 'mean'")
