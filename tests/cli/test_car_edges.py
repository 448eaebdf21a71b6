"""`prunescope car` where something is missing: images of a class, memory, a gradient; and on torchvision's networks."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import refused
from PIL import Image
from safetensors.torch import save_file
from test_verbs import images
from torch import Tensor, nn

from prunescope.cli.units import in_words
from prunescope.data.load import load_data
from prunescope.engine.ablation.answers import Effort
from prunescope.models.zoo import build_model
from prunescope.probes.car import some_images

DATA = "{name: shapes, size: 16, train: 40, val: 24, test: 32}"
LACKING = "tests.cli.own_data:lacking"
LAYER = ("--layer", "features.conv1")


def given(folder: Path, data: str = DATA, model: str = "small_cnn", classes: int = 4) -> tuple[str | Path, ...]:
    """The network, untrained, and images."""
    file = folder / f"{classes}.safetensors"
    save_file(build_model(model, classes=classes, channels=3, seed=0).state_dict(), file)
    return "car", "--model", model, "--weights", file, "--data", data, "--device", "cpu"


# Images


@pytest.mark.parametrize(("data", "count", "lacks"), [(LACKING, 0, 1), (LACKING, 2, 2), (DATA, 3, 1), (DATA, 1, 3)])
def test_classes_without_images(prunescope: Any, tmp_path: Path, data: str, count: int, lacks: int) -> None:
    out = tmp_path / "units"
    ran = prunescope(*given(tmp_path, data), *LAYER, "--images", str(count), "--out", out)
    assert ran.code == 0, ran.err
    facts, table = json.loads((out / "car.json").read_text()), pd.read_csv(out / "classes.csv")
    lacking = facts["classes_without_images"]
    assert len(lacking) == lacks
    assert data == DATA or "kite" in lacking
    assert f"classes without images: {', '.join(lacking)}" in ran.err
    assert table[lacking].isna().all(axis=None)
    assert table.drop(columns=lacking).notna().all(axis=None)
    assert not set(pd.read_csv(out / "units.csv")["worst_class"].dropna()) & set(lacking)
    page = (out / "index.html").read_text()
    assert (f"{lacks} classes have no images" if lacks > 1 else "1 class has no images") in page
    before = (out / "index.html").read_bytes()
    assert prunescope("report", out).code == 0
    assert (out / "index.html").read_bytes() == before


def test_a_network_of_torchvision_on_a_folder_of_images(prunescope: Any, tmp_path: Path) -> None:
    """Beside hooks that make a channel zero behind its ReLU."""
    name, layer, out = "torchvision:squeezenet1_1", "features.3.squeeze", tmp_path / "units"
    spec = {**images(tmp_path / "images", {"cat": 3, "dog": 3, "owl": 3}), "size": 64, "cache": False}
    drawn = some_images(load_data(spec).test, 6, 0)
    network = undecided(build_model(name, classes=3, channels=3, seed=0).eval(), drawn)
    save_file(network.state_dict(), tmp_path / "net.safetensors")
    ran = prunescope(
        "car", "--model", name, "--weights", tmp_path / "net.safetensors", "--data", json.dumps(spec), "--layer", layer,
        "--images", "6", "--out", out, "--look", "2", "--device", "cpu",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    units, facts = pd.read_csv(out / "units.csv"), json.loads((out / "car.json").read_text())
    assert list(zip(units["layer"], units["channel"], strict=True)) == [(layer, channel) for channel in range(16)]
    assert (facts["images"], facts["class_images"]) == (6, [2, 2, 2])
    assert list(pd.read_csv(out / "classes.csv"))[2:] == list(drawn.classes)
    whole = right_without(network, drawn, None)
    for row in units.itertuples():
        without = right_without(network, drawn, row.channel)
        assert (row.losses, row.gains) == (int((whole & ~without).sum()), int((~whole & without).sum()))
    assert units["losses"].sum() + units["gains"].sum() > 0
    assert len(pd.read_csv(out / "sees.csv")) == 16


def undecided(network: nn.Module, split: Any) -> nn.Module:
    """With random weights and no class ahead of the others, so that decisions turn."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=torch.Generator().manual_seed(0))
    head = network.get_submodule("classifier.1")
    with torch.no_grad():
        handle = head.register_forward_hook(lambda _module, _inputs, output: means.append(output.mean((0, 2, 3))))
        means: list[Tensor] = []
        network(split.normalisation(split.images[:]))
        handle.remove()
        head.bias -= means[0] - 1  # type: ignore[operator]
    return network


def right_without(network: nn.Module, split: Any, channel: int | None) -> Tensor:
    """Bool (images,): right with this channel of the first squeeze at zero?"""

    def silence(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, [] if channel is None else [channel]] = 0
        return output

    handle = network.eval().get_submodule("features.3.squeeze_activation").register_forward_hook(silence)
    with torch.no_grad():
        found = network(split.normalisation(split.images[:])).argmax(1) == split.labels
    handle.remove()
    return found


# Memory


def test_memory_that_is_too_little_is_refused_with_what_is_enough(prunescope: Any, tmp_path: Path) -> None:
    command = (*given(tmp_path), *LAYER)
    ran = prunescope(*command, "--memory", "1")
    refused(ran, "memory of 1,048,576 bytes is too little", "allow at least")
    found = re.search(r"allow at least ([\d,]+)", ran.err)
    assert found
    enough = math.ceil(int(found[1].replace(",", "")) / 2**20)
    refused(prunescope(*command, "--memory", str(enough - 1)), "allow at least")
    tables = []
    for name, more in (("least", ("--memory", str(enough))), ("default", ())):
        ran = prunescope(*command, *more, "--look", "0", "--out", tmp_path / name)
        assert ran.code == 0, ran.err
        tables.append(pd.read_csv(tmp_path / name / "units.csv"))
    pd.testing.assert_frame_equal(*tables, atol=1e-6)
    assert prunescope(*command, "--memory", "0").code == 2


def test_the_default_is_that_of_an_effort(prunescope: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Effort] = []

    def stop(_network: object, _split: object, *, effort: Effort, **_: object) -> None:
        asked.append(effort)
        raise KeyboardInterrupt

    monkeypatch.setattr("prunescope.ticket.units.car", stop)
    assert prunescope(*given(tmp_path)).code == 130
    assert prunescope(*given(tmp_path), "--memory", "77").code == 130
    assert [effort.memory for effort in asked] == [Effort().memory, 77 * 2**20]


def test_the_allocator_is_tuned(prunescope: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr("prunescope.engine.allocator.tune_allocator", lambda: calls.append(True))
    assert prunescope(*given(tmp_path), *LAYER).code == 0
    assert calls == [True]


# What is said


def test_surprises_are_said_where_there_are_any(prunescope: Any, tmp_path: Path) -> None:
    out = tmp_path / "units"
    assert prunescope(*given(tmp_path), *LAYER, "--precision", "bf16", "--look", "0", "--out", out).code == 0
    facts = json.loads((out / "car.json").read_text())
    assert facts["surprises"] >= 0
    assert not any("larger than was trusted" in line for line in in_words({**facts, "surprises": 0}))
    (line,) = (line for line in in_words({**facts, "surprises": 1234}) if "larger than was trusted" in line)
    assert "1,234 measurements" in line


# Pictures that are made


def test_pictures_are_made_and_shown(prunescope: Any, tmp_path: Path) -> None:
    out = tmp_path / "units"
    command = (*given(tmp_path), *LAYER, "--look", "2")
    ran = prunescope(*command, "--maximise", "3", "--out", out)
    assert ran.code == 0, ran.err
    stored = pd.read_parquet(out / "patches.parquet")
    assert len(stored) == len(pd.read_csv(out / "units.csv"))
    for content in stored["maximised"]:
        assert np.asarray(Image.open(io.BytesIO(content))).shape == (6, 6, 3)  # filters of three pixels
    assert json.loads((out / "car.json").read_text())["look"]["maximise"] == {"steps": 3, "failed": {}}
    page = (out / "index.html").read_text()
    assert 'class="made"' in page
    assert "by 3 steps of gradient ascent" in page
    refused(prunescope(*command, "--maximise", "3"), "--out FOLDER")
    refused(prunescope(*command, "--maximise", "3", "--look", "0", "--out", tmp_path / "no"), "a look of 1 or more")


def test_where_nothing_can_be_differentiated_nothing_is_lost(prunescope: Any, tmp_path: Path) -> None:
    out = tmp_path / "units"
    command = given(tmp_path, model="tests.ticket.own_nets:detached")
    ran = prunescope(*command, "--look", "2", "--maximise", "3", "--out", out)
    assert ran.code == 0, ran.err
    assert "no picture could be made for the filters of two: RuntimeError: " in ran.err
    assert "filters of one" not in ran.err
    stored = pd.read_parquet(out / "patches.parquet").set_index("layer")
    assert all(stored["maximised"]["one"])
    assert not any(stored["maximised"]["two"])
    assert any(stored["patches"]["two"])
    assert "there is none for two" in (out / "index.html").read_text()
