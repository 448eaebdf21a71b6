"""`prunescope shrink`: a ticket, or a checkpoint of a study, made smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import refused
from safetensors.torch import save_file

from prunescope.models.checkpoint import Checkpoint
from prunescope.models.zoo import build_model
from prunescope.ticket.load import load_shrunk

CHANNELS = {"name": "half", "granularity": "channel", "schedule": {"density": 0.5, "kind": "one-shot"},
            "rewind": {"to": "none"}}  # fmt: skip
STUDY: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "shapes", "size": 16, "train": 96, "val": 48, "test": 48},
    "model": "resnet8",
    "training": {"epochs": 1, "batch_size": 32, "lr": 0.05, "precision": "32"},
    "seeds": {"dense": [0], "tickets": [0]},
    "recipes": [CHANNELS],
    "controls": "none",
    "probes": ["performance"],
    "execution": {"device": "cpu"},
}


@pytest.fixture
def ticket(prunescope: Any, tmp_path: Path) -> Path:
    save_file(build_model("resnet8", classes=4, channels=3, seed=0).state_dict(), tmp_path / "net.safetensors")
    (tmp_path / "recipe.yaml").write_text(json.dumps(CHANNELS))
    files = ("--weights", tmp_path / "net.safetensors", "--recipe", tmp_path / "recipe.yaml")
    data = "{name: shapes, size: 16, train: 96, val: 48, test: 48}"
    ran = prunescope("prune", "--model", "resnet8", *files, "--data", data, "--no-retrain", "--out", tmp_path / "t")
    assert ran.code == 0, ran.err
    return tmp_path / "t"


def test_a_ticket_from_end_to_end(prunescope: Any, ticket: Path, tmp_path: Path) -> None:
    ran = prunescope("shrink", ticket, "--repeats", "6", "--onnx")
    assert ran.code == 0, ran.err
    for words in (
        "dense",
        "masked",
        "smaller",
        "parameters",
        "FLOPs",
        "peak memory",
        "latency, batch",
        "times as",
        "1",
    ):
        assert words in ran.out
    assert "medians of 6 passes, cpu, torch threads: 1" in ran.out
    assert "channels are gone: nothing read them" in ran.err
    assert "48 images: validation images of shapes" in ran.err
    assert "network.pt2: read back and run" in ran.err
    assert "network.onnx: read back and run" in ran.err
    folder = tmp_path / "t-shrunk"
    masked = Checkpoint.load(ticket).into(build_model("resnet8", classes=4, channels=3, seed=0)).eval()
    images = torch.randn(4, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(load_shrunk(folder)(images), masked(images), atol=1e-4, rtol=1e-4)
    refused(prunescope("shrink", ticket), "t-shrunk exists already")
    ran = prunescope("shrink", ticket, "--out", tmp_path / "bare", "--no-program", "--repeats", "0")
    assert ran.code == 0
    assert "latency" not in ran.out
    assert sorted(path.name for path in (tmp_path / "bare").iterdir()) == ["network.json", "network.safetensors"]


def test_single_weights_are_told_honestly(prunescope: Any, ticket: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("{schedule: {density: 0.9, kind: one-shot}, ignore: [classifier]}")
    files = ("--weights", tmp_path / "net.safetensors", "--recipe", tmp_path / "recipe.yaml")
    sizes = ("--classes", "4", "--shape", "3,16,16", "--no-retrain")
    assert prunescope("prune", "--model", "resnet8", *files, *sizes, "--out", tmp_path / "s").code == 0
    ran = prunescope("shrink", tmp_path / "s", "--repeats", "0", "--no-program")
    assert ran.code == 0
    assert "no channel can go: all of them are read" in ran.err
    assert "dense hardware will not run the network any faster" in ran.err


def test_a_checkpoint_of_a_study(prunescope: Any, tmp_path: Path) -> None:
    assert prunescope(study=STUDY).code == 0
    cells = tmp_path / "out" / "cells"
    cell = next(cells.glob("retrain-*"))
    ran = prunescope("shrink", cell, "--out", tmp_path / "net", "--no-program", "--repeats", "0")
    assert ran.code == 0, ran.err
    assert "48 images: test images in the study's store" in ran.err
    masked = Checkpoint.load(cell).into(build_model("resnet8", classes=4, channels=3, seed=0)).eval()
    images = torch.randn(4, 3, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(load_shrunk(tmp_path / "net")(images), masked(images), atol=1e-4, rtol=1e-4)
    dense, probe = next(cells.glob("train-*")), next(cells.glob("probe-*"))
    refused(prunescope("shrink", dense, "--out", tmp_path / "no"), "nothing was pruned")
    refused(prunescope("shrink", probe, "--out", tmp_path / "no"), "no complete checkpoint")
    refused(prunescope("shrink", next(cells.glob("data-*")), "--out", tmp_path / "no"), "is no checkpoint")
    refused(prunescope("shrink", tmp_path, "--out", tmp_path / "no"), "holds no ticket")
    assert not (tmp_path / "no").exists()
