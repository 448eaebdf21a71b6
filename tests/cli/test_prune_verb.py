"""`prunescope prune`: one network, one recipe, one folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import refused
from safetensors.torch import save_file

from prunescope.data.load import load_data
from prunescope.engine.train import fit
from prunescope.models.checkpoint import Checkpoint
from prunescope.models.zoo import build_model
from prunescope.ticket.job import read_recipe_file

DATA = "{name: shapes, size: 16, train: 96, val: 48, test: 48}"
RECIPE = """
schedule: {density: 0.2, rounds: 2}
rewind: {to: none}
training: {epochs: 2, batch_size: 32, lr: 0.02, precision: "32"}
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Weights of a network, and a recipe."""
    save_file(build_model("small_cnn", classes=4, channels=3, seed=0).state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return {"weights": tmp_path / "net.safetensors", "recipe": tmp_path / "recipe.yaml"}


def arguments(files: dict[str, Path], out: Path, *more: str | Path, data: str | None = DATA) -> list[str | Path]:
    given = ["--model", "small_cnn", "--weights", files["weights"], "--recipe", files["recipe"], "--out", out]
    return ["prune", *given, *(["--data", data] if data else []), "--device", "cpu", *more]


def digests(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(folder.rglob("*")) if file.is_file() and file.name != ".lock"}  # fmt: skip


def test_a_ticket_from_end_to_end_and_again(prunescope: Any, files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "ticket"
    ran = prunescope(*arguments(files, out, "--layers"))
    assert ran.code == 0, ran.err
    assert "[1/2] rounds" in ran.err
    for words in ("what is left", "20.00%", "accuracy", "val", "test", "classifier", "dead out"):
        assert words in ran.out, words
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "checkpoint.json", "job.json", "mask.safetensors", "rounds", "ticket.json", "weights.safetensors",
    ]  # fmt: skip
    ticket, first = Checkpoint.load(out), Checkpoint.load(out / "rounds" / "1")
    assert (ticket.round, first.round) == (2, 1)
    assert ticket.mask is not None
    assert first.mask is not None
    assert ticket.mask.nested_in(first.mask)
    assert ticket.mask.kept == round(0.2 * ticket.mask.total)
    facts = json.loads((out / "ticket.json").read_text())
    assert facts["rounds"][1]["density"] == ticket.density
    assert 0 < facts["rounds"][1]["effective_density"] <= ticket.density
    assert facts["accuracy"]["after"]["test"]["low"] < facts["accuracy"]["after"]["test"]["high"]
    assert facts["data"]["normalisation"]["mean"]
    assert {row["layer"]: row["density"] for row in facts["layers"]} == pytest.approx(ticket.mask.densities)
    before = digests(out)
    again = prunescope(*arguments(files, out))
    assert (again.code, again.err.count("rounds")) == (0, 0)
    assert "20.00%" in again.out
    assert digests(out) == before


def test_what_it_measures_is_what_fit_measures(prunescope: Any, files: dict[str, Path], tmp_path: Path) -> None:
    assert prunescope(*arguments(files, tmp_path / "ticket")).code == 0
    facts = json.loads((tmp_path / "ticket" / "ticket.json").read_text())
    last = Checkpoint.load(tmp_path / "ticket").history[-1]
    assert facts["accuracy"]["after"]["val"]["value"] == pytest.approx(last["val_accuracy"])
    assert not {"seconds", "images_per_second"} & set(last)


@pytest.mark.slow
def test_killed_and_run_again_it_gives_the_same_bits(prunescope: Any, files: dict[str, Path], tmp_path: Path) -> None:
    longer = RECIPE.replace("epochs: 2", "epochs: 8")
    files["recipe"].write_text(longer)
    assert prunescope(*arguments(files, tmp_path / "calm")).code == 0
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "prunescope", *map(str, arguments(files, out))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    moments = [out / "state" / "1.state", out / "rounds" / "1", out / "state" / "2.state"]
    for moment in moments:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 120
            while not moment.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.002)
            assert process.poll() is None, "it was done before it could be killed"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert moment.exists()
        assert not (out / "ticket.json").exists()
    assert prunescope(*arguments(files, out)).code == 0
    assert digests(out) == digests(tmp_path / "calm")


def test_a_full_disk_is_said_and_what_was_done_is_kept(
    prunescope: Any, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = tmp_path / "ticket", Checkpoint.save

    def full(checkpoint: Checkpoint, folder: Path) -> None:
        if checkpoint.round == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(checkpoint, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", full)
        ran = prunescope(*arguments(files, out, "--quiet"))
        refused(ran, "the disk is full", "make room and run again")
    assert (out / "rounds" / "1").is_dir()
    assert not (out / "ticket.json").exists()
    assert prunescope(*arguments(files, out)).code == 0
    (out / "state").mkdir()  # as if it had been killed between its last two steps
    assert prunescope(*arguments(files, out)).code == 0
    assert not (out / "state").exists()


def test_another_job_or_other_files_are_refused_and_kept(
    prunescope: Any, files: dict[str, Path], tmp_path: Path
) -> None:  # fmt: skip
    out = tmp_path / "ticket"
    assert prunescope(*arguments(files, out)).code == 0
    before = digests(out)
    refused(prunescope(*arguments(files, out, "--set", "schedule.density=0.5")), "schedule.density: 0.2 there, 0.5")
    refused(prunescope(*arguments(files, out, "--seed", "1")), "seed: 0 there, 1 here")
    assert digests(out) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    refused(prunescope(*arguments(files, tmp_path / "mine")), "mine exists and holds no ticket")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_other_data_under_the_same_name_is_refused(prunescope: Any, files: dict[str, Path], tmp_path: Path) -> None:
    from test_verbs import images

    files["recipe"].write_text(RECIPE.replace("0.2", "0.5"))
    save_file(build_model("small_cnn", classes=2, channels=3, seed=0).state_dict(), files["weights"])
    images(tmp_path / "data", {"cat": 6, "dog": 6})
    data = f"{{name: folder, root: {tmp_path / 'data'}, size: 16, cache: false}}"
    out = tmp_path / "ticket"
    assert prunescope(*arguments(files, out, data=data)).code == 0
    (out / "ticket.json").unlink()  # as if it had been killed before the end
    (tmp_path / "data" / "train" / "cat" / "0.png").unlink()
    refused(prunescope(*arguments(files, out, data=data)), "fingerprint")


def test_a_network_that_comes_pruned_is_told_layer_by_layer(
    prunescope: Any, files: dict[str, Path], tmp_path: Path
) -> None:  # fmt: skip
    model = build_model("small_cnn", classes=4, channels=3, seed=0)
    weights = model.state_dict()
    name = next(name for name, tensor in weights.items() if tensor.dim() == 4 and tensor.shape[1] > 3)
    zeros = torch.rand(weights[name].shape, generator=torch.Generator().manual_seed(0)) < 0.5
    weights[name][zeros] = 0
    save_file(weights, files["weights"])
    ran = prunescope(*arguments(files, tmp_path / "kept"))
    assert ran.code == 0
    assert f"warning: the network comes with zeros: {int(zeros.sum()):,} of" in ran.err
    assert "came" in ran.out
    assert not Checkpoint.load(tmp_path / "kept").weights[name][zeros].any()
    ran = prunescope(*arguments(files, tmp_path / "free", "--zeros", "free", "--set", "schedule.density=1"))
    assert (ran.code, "warning" in ran.err) == (0, False)
    assert Checkpoint.load(tmp_path / "free").weights[name][zeros].any()


def test_without_data_it_only_cuts(prunescope: Any, files: dict[str, Path], tmp_path: Path) -> None:
    sizes = ("--classes", "4", "--shape", "3,16,16")
    ran = prunescope(*arguments(files, tmp_path / "ticket", *sizes, "--no-retrain", data=None))
    assert ran.code == 0, ran.err
    assert "accuracy is not known" in ran.err
    assert Checkpoint.load(tmp_path / "ticket").density == pytest.approx(0.2, abs=1e-3)
    out = tmp_path / "no"
    refused(prunescope(*arguments(files, out, "--no-retrain", data=None)), "--classes 10 --shape 3,32,32")
    refused(prunescope(*arguments(files, out, *sizes, data=None)), "needs images and their labels", "--no-retrain")
    wrong = ("--classes", "4", "--shape", "big")
    refused(prunescope(*arguments(files, out, *wrong, data=None)), "as 3,32,32; got 'big'")
    again = prunescope(*arguments(files, out, *sizes, "--no-retrain", data=None))
    assert again.code == 0, "a try that failed early leaves nothing to protect"


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        (["schedule.density=0"], ["schedule", "above 0 and at most 1, got 0"]),
        (["schedule.density=1.5"], ["above 0 and at most 1, got 1.5"]),
        (["ignore=[classifyer]"], ["ignore: 'classifyer' matches no parameter", "did you mean 'classifier'"]),
        (["granularity={name: 'n:m', n: 2, m: 4}", "schedule={kind: one-shot, density: 0.5}"], ["4 does not divide"]),
        (["criterion=magnitued"], ["did you mean 'magnitude'"]),
        (["rewind={to: init}"], ["--rewind-weights", "rewind: {to: none}"]),
        (["training.lr=fast"], ["training.lr", "'fast'"]),
        (["densty=0.5"], ["densty"]),
        (["schedule.density"], ["key=value"]),
    ],
)
def test_bad_recipes_are_one_clear_line(
    prunescope: Any, files: dict[str, Path], tmp_path: Path, sets: list[str], expected: list[str]
) -> None:
    more = [part for text in sets for part in ("--set", text)]
    refused(prunescope(*arguments(files, tmp_path / "ticket", *more)), *expected)
    assert not (tmp_path / "ticket" / "ticket.json").exists()


def test_other_bad_input(prunescope: Any, files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "ticket"
    sizes = ("--classes", "4", "--shape", "3,16,16", "--no-retrain")
    snip = (*sizes, "--set", "criterion=snip")
    refused(prunescope(*arguments(files, out, *snip, data=None)), "criterion 'snip' needs images and their labels")
    refused(prunescope(*arguments(files, out, "--zeros", "kepp")), "did you mean 'keep'")
    refused(prunescope(*arguments(files, out, data="shaeps")), "did you mean 'shapes'")
    refused(prunescope(*arguments(files, out, "--model", "small_cn")), "did you mean 'small_cnn'")
    refused(prunescope(*arguments(files, out, "--model", "resnet8")), "do not fit SmallResNet")
    refused(prunescope(*arguments({**files, "recipe": tmp_path / "none.yaml"}, out)), "none.yaml")
    refused(prunescope(*arguments({**files, "weights": tmp_path / "none.pt"}, out)), "none.pt: no such file")
    bare = ["prune", "--model", "small_cnn", "--recipe", files["recipe"], "--out", out, "--data", DATA]
    refused(prunescope(*bare), "no trained weights to prune", "--weights")
    assert not (out / "ticket.json").exists()


BRANCHING = """
import torch

class Branching(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(3, 8, 1), torch.nn.Linear(8, 4)

    def forward(self, x):
        x = self.conv(x)
        return self.head((x if float(x.sum()) > 0 else -x).mean((2, 3)))
"""


def test_a_network_that_cannot_be_traced(
    prunescope: Any, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "branching_net.py").write_text(BRANCHING)
    given = ("--model", "branching_net:Branching", "--set", "schedule={density: 0.5, kind: one-shot}", "--no-retrain")
    model = build_model("branching_net:Branching", classes=4, channels=3, seed=0)
    save_file(model.state_dict(), files["weights"])
    ran = prunescope(*arguments(files, tmp_path / "single", *given))
    assert ran.code == 0, ran.err
    assert "50.00%" in ran.out
    assert "not known" in ran.out  # the effective density
    whole = prunescope(*arguments(files, tmp_path / "channels", *given, "--set", "granularity=channel"))
    refused(whole, "Branching does not run", "Pruning single weights, filters or kernels needs no graph")


def test_a_recipe_that_rewinds_goes_back_to_the_file(prunescope: Any, files: dict[str, Path], tmp_path: Path) -> None:
    first = build_model("small_cnn", classes=4, channels=3, seed=5)
    save_file(first.state_dict(), tmp_path / "init.safetensors")
    given = ("--rewind-weights", tmp_path / "init.safetensors", "--set", "rewind={to: init}")
    assert prunescope(*arguments(files, tmp_path / "ticket", *given)).code == 0
    ticket, recipe = Checkpoint.load(tmp_path / "ticket"), read_recipe_file(files["recipe"])
    split = load_data({"name": "shapes", "size": 16, "train": 96, "val": 48, "test": 48}).train
    assert recipe.training is not None
    fit(first, split, recipe.training, seed=0, mask=ticket.mask, order=2, device="cpu")
    assert all(torch.equal(tensor, ticket.weights[name]) for name, tensor in first.state_dict().items())
