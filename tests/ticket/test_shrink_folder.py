"""Tickets and checkpoints made smaller, written, and loaded again; and files that must not be trusted."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import prunescope as ps
from prunescope.core.errors import PrunescopeError, PrunescopeWarning
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.packed import load_packed
from prunescope.ticket.job import Job, read_recipe_file
from prunescope.ticket.load import load_shrunk
from prunescope.ticket.pruned import read_pruned
from prunescope.ticket.run import run
from prunescope.ticket.shrink import difference, in_words, shrink_folder
from random_nets import lively

SHAPES: dict[str, Any] = {"name": "shapes", "size": 16, "train": 64, "val": 24, "test": 24}
CHANNELS = "{schedule: {density: 0.5, kind: one-shot}, granularity: channel, scope: layer}"
TRANSFORMER = "tests.ticket.own_nets:vision_transformer"
SINGLE = "{schedule: {density: 0.9, kind: one-shot}, ignore: [classifier*]}"


def ticket(
    place: Path, recipe: str, model: str = "resnet8", *, side: int = 16, data: dict[str, Any] | None = SHAPES
) -> Path:  # fmt: skip
    """A ticket of an untrained network with lively statistics, cut without retraining."""
    torch.manual_seed(0)
    place.mkdir()
    network = lively(ps.build_model(model, classes=4, channels=3, seed=0))
    save_file(network.state_dict(), place / "net.safetensors")
    (place / "recipe.yaml").write_text(recipe)
    options: dict[str, Any] = {"classes": 4, "shape": (3, side, side)} if data is None else {}
    job = Job(
        {"name": model}, place / "net.safetensors", read_recipe_file(place / "recipe.yaml"), data=data, retrain=False,
        device="cpu", **options,
    )  # fmt: skip
    run(job, place / "ticket")
    return place / "ticket"


def outputs(network: nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return network.eval()(images)


@pytest.fixture(scope="module")
def channels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ticket(tmp_path_factory.mktemp("channels") / "t", CHANNELS)


@pytest.fixture(scope="module")
def written(channels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("written") / "net"
    shrink_folder(channels, out, program=True, onnx=True, batch_sizes=(1, 3), repeats=6)
    return out


@pytest.mark.parametrize(
    ("model", "side"),
    [("resnet8", 16), ("torchvision:googlenet", 64), ("torchvision:mobilenet_v2", 32), (TRANSFORMER, 16)],
)
def test_what_is_loaded_gives_what_the_masked_network_gives(model: str, side: int, tmp_path: Path) -> None:
    place = ticket(tmp_path / "t", CHANNELS, model, side=side, data=None)
    own = ps.build_model(model, classes=4, channels=3, seed=1) if model == TRANSFORMER else None
    facts = shrink_folder(place, tmp_path / "net", model=own, repeats=0, batch_sizes=(1,))
    pruned = read_pruned(place, model=own)
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(9))
    expected, found = outputs(pruned.network, images), outputs(load_shrunk(tmp_path / "net", own), images)
    assert expected.std() > 1e-4
    assert (expected - found).abs().max() < 1e-4 * max(1.0, float(expected.abs().max()))
    prints = facts["costs"]["footprints"]
    assert facts["removed"] > 0
    assert prints["smaller"]["parameters"] < 0.8 * prints["masked"]["parameters"]
    assert prints["dense"]["parameters"] == prints["masked"]["parameters"]
    assert prints["masked"]["nonzero"] < prints["dense"]["nonzero"]
    assert facts["compared"]["on"] == "noise"
    assert not (tmp_path / "net" / "network.pt2").exists()


def test_a_folder_holds_what_it_says(channels: Path, written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == [
        "network.json", "network.onnx", "network.pt2", "network.safetensors",
    ]  # fmt: skip
    facts = json.loads((written / "network.json").read_text())
    assert facts["bytes"] == (written / "network.safetensors").stat().st_size
    assert facts["compared"]["on"] == "validation images of shapes"
    assert facts["compared"]["images"] == 24
    assert facts["compared"]["difference"] < 1e-4
    assert set(facts["exports"]) == {"network.pt2", "network.onnx"}
    assert facts["costs"]["threads"] == torch.get_num_threads()
    assert set(facts["costs"]["latency"]) == {"1", "3"}
    assert set(facts["costs"]["speedup"]["3"]) == {"masked", "smaller"}
    for found in facts["costs"]["latency"]["1"].values():
        assert 0 < found["low"] <= found["value"] <= found["high"]
    pruned, images = read_pruned(channels), ps.load_data(SHAPES).val
    pixels = images.normalisation(images.images[:])
    assert pruned.images is not None
    assert torch.equal(pruned.images, pixels)
    program = torch.export.load(written / "network.pt2").module()
    torch.testing.assert_close(program(pixels[:5]), outputs(load_shrunk(written), pixels[:5]))
    words = list(in_words(facts))
    assert words[0].startswith(f"{facts['removed']} of {facts['units']} channels are gone")
    assert len(words) == 4


def test_single_weights_are_packed_and_no_speed_is_promised(tmp_path: Path) -> None:
    place = ticket(tmp_path / "t", SINGLE)
    facts = shrink_folder(place, tmp_path / "net", repeats=0, batch_sizes=(1,))
    assert sorted(path.name for path in (tmp_path / "net").iterdir()) == ["network.json", "packed.safetensors"]
    assert set(facts["costs"]["footprints"]) == {"dense", "masked"}
    assert any("will not run the network any faster" in line for line in in_words(facts))
    assert facts["entropy_bound"] <= facts["bytes"] < 1.05 * facts["entropy_bound"] + 4000
    checkpoint = Checkpoint.load(place)
    weights, mask = load_packed(tmp_path / "net" / "packed.safetensors")
    assert mask == checkpoint.mask
    again = load_shrunk(tmp_path / "net").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in checkpoint.weights.items())
    assert set(weights) == set(again)


def test_zeros_that_stay_in_a_smaller_network_are_told(tmp_path: Path) -> None:
    place = ticket(tmp_path / "t", "{schedule: {density: 0.2, kind: one-shot}}")
    facts = shrink_folder(place, tmp_path / "net", repeats=0, batch_sizes=(1,))
    assert facts["removed"] > 0
    left = facts["costs"]["footprints"]["smaller"]
    told = f"{left['parameters'] - left['nonzero']:,} of {left['parameters']:,} parameters are zero"
    assert any(told in line and "will not run the network any faster" in line for line in in_words(facts))


def test_a_network_of_ones_own_is_built_by_its_owner_alone(tmp_path: Path) -> None:
    place = ticket(tmp_path / "t", CHANNELS, "tests.study.nets:little")
    with pytest.raises(PrunescopeError, match="files do not decide what code runs: build it and pass the network"):
        shrink_folder(place, tmp_path / "net", repeats=0)
    own = ps.build_model("tests.study.nets:little", classes=4, channels=3, seed=7)
    before = copy.deepcopy(own.state_dict())
    shrink_folder(place, tmp_path / "net", model=own, repeats=0, batch_sizes=(1,))
    assert all(torch.equal(tensor, before[name]) for name, tensor in own.state_dict().items())
    shrink_folder(place, tmp_path / "named", model={"name": "tests.study.nets:little"}, repeats=0, batch_sizes=(1,))
    with pytest.raises(PrunescopeError, match="files do not decide what code runs"):
        load_shrunk(tmp_path / "net")
    images = torch.randn(3, 3, 16, 16)
    small = load_shrunk(tmp_path / "net", own)
    torch.testing.assert_close(outputs(small, images), outputs(Checkpoint.load(place).into(
        ps.build_model("tests.study.nets:little", classes=4, channels=3, seed=0)), images))  # fmt: skip


def test_data_that_is_gone_means_noise_and_a_warning(channels: Path, tmp_path: Path) -> None:
    place = tmp_path / "ticket"
    place.mkdir()
    for name in ("weights.safetensors", "mask.safetensors", "checkpoint.json"):
        (place / name).write_bytes((channels / name).read_bytes())
    facts = json.loads((channels / "ticket.json").read_text())
    for spec, words in (
        ({"name": "folder", "root": str(tmp_path / "gone")}, "there is no folder"),
        ({"name": "os:system", "command": "true"}, "files do not decide what code runs"),
        ({}, "cannot be read here"),
    ):
        facts["job"]["data"] = spec
        (place / "ticket.json").write_text(json.dumps(facts))
        with pytest.warns(PrunescopeWarning, match=words):
            assert read_pruned(place).source == "noise"
    assert read_pruned(place, data=SHAPES).source == "validation images of shapes"
    with pytest.raises(PrunescopeError, match=r"images of \(3, 32, 32\), the network wants \(3, 16, 16\)"):
        read_pruned(place, data={**SHAPES, "size": 32})


def test_outputs_that_differ_are_refused() -> None:
    one, images = nn.Linear(4, 2), torch.randn(8, 4)
    other = copy.deepcopy(one)
    assert difference(one, other, images) == 0
    with torch.no_grad():
        other.bias[1] += 3e-4
    with pytest.raises(PrunescopeError, match=r"differ by 0\.0003 on 8 images; allowed: 0\.000"):
        difference(one, other, images)
    with torch.no_grad():
        other.bias[1] = torch.nan
    with pytest.raises(PrunescopeError, match="differ"):
        difference(one, other, images)


def test_nothing_is_overwritten_and_nothing_half_written_stays(
    channels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(PrunescopeError, match="mine exists already"):
        shrink_folder(channels, tmp_path / "mine")
    monkeypatch.setattr("prunescope.ticket.shrink.load_shrunk", lambda *args: nn.Flatten())
    with pytest.raises(Exception):  # noqa: B017 (whatever a network does that is not the one)
        shrink_folder(channels, tmp_path / "net", repeats=0, batch_sizes=(1,))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_what_holds_no_pruned_network_is_refused(channels: Path, tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match="holds no ticket"):
        read_pruned(tmp_path)
    place = tmp_path / "whole"
    Checkpoint.of(ps.build_model("resnet8", classes=4, channels=3, seed=0)).save(place)
    (place / "ticket.json").write_text((channels / "ticket.json").read_text())
    with pytest.raises(PrunescopeError, match="nothing was pruned"):
        read_pruned(place, data=SHAPES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda facts: facts.update(format=2), "has format 2; this version reads format 1"),
        (lambda facts: facts.update(kind="study"), "does not describe a network"),
        (lambda facts: facts.update(network=[]), "network: expected a mapping"),
        (lambda facts: facts.pop("weights"), "it lacks weights"),
        (lambda facts: facts.update(weights="../../etc/passwd"), r"not in '\.\./\.\./etc/passwd'"),
        (lambda facts: facts.update(weights=["network.safetensors"]), "not in"),
        (lambda facts: facts["network"].update(model={"name": "os:system"}), "files do not decide what code runs"),
        (lambda facts: facts["network"].update(model={"name": "resnet9"}), "unknown model 'resnet9'"),
        (lambda facts: facts["network"].update(model={}), "expected a name"),
        (lambda facts: facts["network"].update(model={"name": "resnet8", "width": 9**9}), "unknown option"),
        (lambda facts: facts["network"].update(classes=10**9), "from 1 to 1,000,000"),
        (lambda facts: facts["network"].update(classes=10**6), "tells of 1000000 classes"),
        (lambda facts: facts["network"].update(classes="four"), "classes"),
        (lambda facts: facts["network"].update(shape=[3, 16]), "shape"),
        (lambda facts: facts["network"].update(shape=[10**5, 16, 16]), "channels from 1 to"),
        (lambda facts: facts["network"].update(extra=1), "unknown key"),
        (lambda facts: facts["network"].update(attributes={"forward": True}), "attributes"),
        (lambda facts: facts["network"]["sizes"]["conv1"].update(out_channels=10**9), "expected a number from 1 to 16"),
        (lambda facts: facts["network"]["sizes"]["conv1"].update(out_channels=-1), "expected a number from 1 to 16"),
        (lambda facts: facts["network"]["sizes"].update({"__class__": {"x": 1}}), "no module '__class__'"),
        (lambda facts: facts["network"]["sizes"]["conv1"].update(out_channels=3), "do not fit"),
        (lambda facts: facts["network"].update(sizes={}), "do not fit"),
    ],
)
def test_descriptions_that_cannot_be_are_refused(written: Path, tmp_path: Path, change: Any, words: str) -> None:
    facts = json.loads((written / "network.json").read_text())
    change(facts)
    (tmp_path / "network.json").write_text(json.dumps(facts))
    (tmp_path / "network.safetensors").write_bytes((written / "network.safetensors").read_bytes())
    with pytest.raises(PrunescopeError, match=words):
        load_shrunk(tmp_path)


def test_damaged_files_are_named(written: Path, tmp_path: Path) -> None:
    with pytest.raises(PrunescopeError, match=r"holds no network: there is no network\.json"):
        load_shrunk(tmp_path)
    text = (written / "network.json").read_text()
    for content in (text[: len(text) // 2], "[]", "", "null"):
        (tmp_path / "network.json").write_text(content)
        with pytest.raises(PrunescopeError, match=r"network\.json is damaged"):
            load_shrunk(tmp_path)
    (tmp_path / "network.json").write_text(text)
    with pytest.raises(PrunescopeError, match=r"network\.safetensors: no such file"):
        load_shrunk(tmp_path)
    (tmp_path / "network.safetensors").write_bytes((written / "network.safetensors").read_bytes()[:999])
    with pytest.raises(PrunescopeError, match=r"network\.safetensors is damaged"):
        load_shrunk(tmp_path)
