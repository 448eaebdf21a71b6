"""Pictures that are made beside `visualise`; and what becomes of layers of which none can be made."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import prunescope as ps
from prunescope.data.load import load_data
from prunescope.data.split import Split
from prunescope.testing.snapshot import Snapshot
from prunescope.ticket.maximised import SIDE, maximised
from prunescope.ticket.sees import Sees, look


@pytest.fixture(scope="module")
def images() -> Split:
    return load_data({"name": "shapes", "size": 32, "train": 8, "val": 8, "test": 12}).test


def net() -> nn.Sequential:
    """The norm turns channel 1 upside down; the second layer sees 7 pixels, the third the whole image."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(3),
        nn.Conv2d(5, 6, 3), nn.Flatten(), nn.Linear(6, 4),
    )  # fmt: skip
    made[1].weight.data = torch.tensor([1.0, -1.0, 0.5, 2.0])
    return made.eval()


UNITS = [("0", 1), ("0", 3), ("3", 0), ("3", 4), ("6", 2)]


def seen(network: nn.Module, split: Split, units: Any = UNITS) -> Sees:
    return look(network, split, units, k=2)


def pixels(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def test_pictures_are_those_of_the_function_behind_norms(images: Split) -> None:
    network = net()
    before, plain = Snapshot(network), seen(network, images)
    counted: list[tuple[int, int]] = []
    found = maximised(network, images, plain, steps=4, seed=3, on_made=lambda *counts: counted.append(counts))
    assert before.differences() == []
    assert "maximised" not in plain.pictures
    assert found.facts == {**plain.facts, "maximise": {"steps": 4, "failed": {}}}
    assert counted == [(2, 5), (4, 5), (5, 5)]
    for layer, place, side, jitter in (("0", "1", 6, 1), ("3", "3", 14, 2), ("6", "6", 32, 4)):
        channels = [channel for name, channel in UNITS if name == layer]
        made = ps.visualise(
            network, place, channels, (3, side, side), images.normalisation,
            options=ps.Ascent(steps=4, jitter=jitter, seed=3),
        )  # fmt: skip
        for channel, image in zip(channels, made.images, strict=True):
            kept = pixels(found.pictures["maximised"][layer, channel])
            assert kept.shape == image.shape == (side, side, 3)
            assert np.abs(kept.astype(int) - image).mean() < (8 if side > 16 else 1e-9)  # small ones without loss


def test_they_excite_more_than_the_best_patches(images: Split) -> None:
    network = net()
    found = maximised(network, images, seen(network, images), steps=60)
    with torch.no_grad():
        best = network[:4](images.normalisation(images.images[:])).amax((0, 2, 3))
        for channel in (0, 4):
            picture = torch.tensor(pixels(found.pictures["maximised"]["3", channel])).permute(2, 0, 1)
            assert network[:4](images.normalisation(picture[None]))[0, channel].max() > best[channel]


def test_large_ones_are_made_smaller_and_few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    large = load_data({"name": "shapes", "size": 96, "train": 8, "val": 8, "test": 8}).test
    network, batches = nn.Sequential(nn.Conv2d(3, 5, 61), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)), []

    def counted(module: nn.Module, layer: str, filters: list[int], *rest: Any, **options: Any) -> Any:
        batches.append(list(filters))
        return ps.visualise(module, layer, filters, *rest, **options)

    monkeypatch.setattr("prunescope.ticket.maximised.visualise", counted)
    monkeypatch.setattr("prunescope.ticket.maximised.AT_ONCE", 2 * 96 * 96)
    found = maximised(network, large, seen(network, large, [("0", c) for c in range(5)]), steps=1)
    assert batches == [[0, 1], [2, 3], [4]]
    assert all(pixels(content).shape == (SIDE, SIDE, 3) for content in found.pictures["maximised"])


class Fixed(nn.Module):
    """Takes images of one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 3), nn.Linear(2, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 32:
            raise ValueError("images of 32 pixels")
        return self.head(self.two(self.one(x)).mean((2, 3)))


def test_a_network_that_takes_one_size_only(images: Split) -> None:
    network = Fixed()
    found = maximised(network, images, seen(network, images, [("one", 0), ("two", 1)]), steps=1)
    assert found.facts["maximise"]["failed"] == {}
    assert all(pixels(content).shape == (32, 32, 3) for content in found.pictures["maximised"])


def test_a_layer_that_fails_costs_the_others_nothing(images: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    network = net()

    def fails(module: nn.Module, layer: str, *rest: Any, **options: Any) -> Any:
        if layer == "3":
            raise RuntimeError("no gradient\nhere")
        if layer == "6":
            raise ps.PrunescopeError("not this one")
        return ps.visualise(module, layer, *rest, **options)

    monkeypatch.setattr("prunescope.ticket.maximised.visualise", fails)
    found = maximised(network, images, seen(network, images), steps=1)
    assert found.facts["maximise"]["failed"] == {"3": "RuntimeError: no gradient", "6": "not this one"}
    assert [content != b"" for content in found.pictures["maximised"]] == [True, True, False, False, False]
