"""Made images excite planted filters more than any image of the data does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_sees import images
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.data.split import Normalisation
from prunescope.engine.extremes import extremes
from prunescope.engine.visualise import Ascent, Visualisation, visualise
from prunescope.testing.snapshot import Snapshot, prepare


def planted() -> nn.Sequential:
    """An edge from dark to light downwards, red against green and blue; behind them a corner of both."""
    first, second = nn.Conv2d(3, 2, 5), nn.Conv2d(2, 1, 3)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[0, :, :2], first.weight[0, :, 3:] = -1, 1
        first.weight[1, 0], first.weight[1, 1:] = 1, -0.5
        second.weight.fill_(0.1)
        for layer in (first, second):
            layer.bias.zero_()
    return nn.Sequential(first, nn.ReLU(inplace=True), second, nn.Flatten(), nn.LazyLinear(2))


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    made = planted()
    made(torch.zeros(1, 3, 14, 14))
    return made


def made(model: nn.Module, layer: str, filters: list[int], **options: Any) -> Visualisation:
    return visualise(model, layer, filters, (3, 14, 14), images().normalisation, options=Ascent(**options))


def test_more_than_the_best_image(model: nn.Sequential) -> None:
    best = extremes(model, images(200), ["0", "2"], k=1)
    for layer, filters in (("0", [0, 1]), ("2", [0])):
        found = made(model, layer, filters, jitter=1)
        assert (found.activations > 1.1 * best[layer].top.values[:, 0]).all()
        x = images().normalisation(torch.from_numpy(found.images).permute(0, 3, 1, 2))
        with torch.no_grad():
            maps = model[0](x) if layer == "0" else model[2](model[0](x).relu())
        expected = [maps[i, index].max().item() for i, index in enumerate(filters)]
        np.testing.assert_allclose(found.activations, expected, rtol=1e-5)


def test_the_planted_pattern_is_there(model: nn.Sequential) -> None:
    found = made(model, "0", [0, 1], jitter=1)
    edge, red = found.images.astype(float)
    with torch.no_grad():
        maps = model[0](images().normalisation(torch.from_numpy(found.images).permute(0, 3, 1, 2)))
    row, column = divmod(int(maps[0, 0].argmax()), 10)
    seen = edge[row : row + 5, column : column + 5]
    assert seen[3:].mean() > seen[:2].mean() + 150
    row, column = divmod(int(maps[1, 1].argmax()), 10)
    seen = red[row : row + 5, column : column + 5].mean((0, 1))
    assert seen[0] > seen[1:].max() + 150


def test_seeds_decide_and_filters_do_not_know_each_other(model: nn.Sequential) -> None:
    one, again, other = (made(model, "0", [0, 1], steps=6, seed=seed) for seed in (0, 0, 1))
    assert (one.images == again.images).all()
    assert (one.activations == again.activations).all()
    assert (one.images != other.images).any()
    alone = made(model, "0", [1], steps=6)
    assert np.abs(alone.images[0].astype(int) - one.images[1]).max() <= 1
    assert (one.images[0] != one.images[1]).any()
    assert (made(model, "0", [1], steps=6, jitter=0).images != alone.images).any()


def test_the_network_is_left_as_it_was() -> None:
    model = planted()
    model(torch.zeros(1, 3, 14, 14))
    before = Snapshot(prepare(model))
    made(model, "2", [0], steps=3)
    assert before.differences() == []


def test_grey_images_and_uneven_sizes() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    found = visualise(model, "0", [1, 0, 1], (1, 9, 12), Normalisation(), options=Ascent(steps=20))
    assert found.images.shape == (3, 9, 12, 3)
    assert (found.images[..., 0] == found.images[..., 2]).all()
    assert (found.images[0] == found.images[2]).all()


def test_what_cannot_be_visualised_is_refused(model: nn.Sequential) -> None:
    with pytest.raises(PrunescopeError, match="layer '0' has filters 0 to 1, got 2"):
        made(model, "0", [0, 2])
    with pytest.raises(PrunescopeError, match="unknown layer '9'"):
        made(model, "9", [0])
    with pytest.raises(PrunescopeError, match="grey or RGB, got 2 channels"):
        visualise(model, "0", [0], (2, 9, 9), Normalisation())
