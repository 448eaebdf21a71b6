"""`sees.csv` and the patches beside what they are made from."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from prunescope.core.errors import PrunescopeError
from prunescope.data.load import load_data
from prunescope.data.split import Split
from prunescope.engine.correlations import channel_correlations
from prunescope.engine.sees.look import Look, what_filters_see
from prunescope.engine.sees.norms import behind_norms
from prunescope.ticket.sees import SIDE, look, strip
from prunescope.ticket.units import Question


@pytest.fixture(scope="module")
def images() -> Split:
    return load_data({"name": "shapes", "size": 16, "train": 8, "val": 8, "test": 40}).test


def net(channels: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(180, 4),
    )  # fmt: skip
    made[1].weight.data = torch.tensor([1.0, -1.0, 0.5, 2.0])
    made[3].weight.data[1] = 0  # dead
    return made.eval()


UNITS = [("0", 1), ("0", 3), ("3", 0), ("3", 1), ("3", 4), ("6", 2)]


def test_rows_are_those_of_the_parts(images: Split) -> None:
    model = net()
    found = look(model, images, UNITS, k=3, seed=5)
    assert list(found.rows.index) == UNITS[:-1]  # a linear layer sees no patches
    assert list(found.pictures.index) == UNITS[:-1]
    views = {view.layer: view for view in what_filters_see(model, images, ["1", "3"], options=Look(3, SIDE, seed=5))}
    alike = channel_correlations(model, images, ["1", "3"])
    for (layer, channel), row in zip(found.rows.index, found.rows.itertuples(), strict=True):
        place = "1" if layer == "0" else "3"  # behind its norm, where it has one
        view, others = views[place], np.delete(alike[place][channel], channel)
        assert row.live == (not view.extremes.dead[channel])
        for own, value in ((row.colour, view.colour), (row.shape, view.shape), (row.class_selectivity, view.classes)):
            assert own == pytest.approx(value[channel], nan_ok=True)
        if row.live:
            assert row.colour_selective == view.colour_selective[channel] == (row.colour >= 0.4)
            assert row.shape_selective == view.shape_selective[channel] == (row.shape >= 0.4)
            assert row.redundancy == pytest.approx(np.nanmax(others), abs=1e-5)  # batches differ
            assert alike[place][channel, row.partner] == pytest.approx(row.redundancy, abs=1e-5)
            assert row.partner != channel
            labels = view.labels[channel].tolist()
            assert row.top_images == labels.count(images.classes.index(row.top_class)) == max(map(labels.count, labels))
        else:
            assert np.isnan(row.redundancy)
            assert (row.top_images, row.cluster) == (0, -1)
            assert found.pictures["patches"][layer, channel] == b""
        assert row.frame == {"0": 3, "3": 5}[layer]
        assert np.isnan(row.chroma) == (layer != "0")
        assert (found.pictures["kernel"][layer, channel] != b"") == (layer == "0")
    assert found.facts["behind_norms"] == 1
    assert found.facts["patches"] == 3


def test_patches_are_the_pixels_of_the_images(images: Split) -> None:
    found = look(net(), images, [("0", 1)], k=2)
    (view,) = what_filters_see(net(), images, ["1"], options=Look(2, SIDE))
    shown = np.asarray(Image.open(io.BytesIO(found.pictures["patches"]["0", 1])))
    assert shown.shape == (3, 6, 3)
    for rank in range(2):
        top, bottom, left, right = view.boxes[1, rank]
        pixels = images.images[view.extremes.top.images[1, rank], :, top : bottom + 1, left : right + 1]
        assert (shown[:, 3 * rank : 3 * rank + 3] == pixels.permute(1, 2, 0).numpy()).all()


@pytest.mark.parametrize("frame", [1, 2, 7, 16, 17, 31, 47, 48, 60])
def test_enlarged_patches_are_kept_at_their_own_size(frame: int) -> None:
    own = min(frame, SIDE)
    small = torch.randint(0, 256, (2, 3, own, own), generator=torch.Generator().manual_seed(frame)).float()
    large = nn.functional.interpolate(small, (SIDE, SIDE), mode="nearest-exact").byte().permute(0, 2, 3, 1).numpy()
    shown = np.asarray(Image.open(io.BytesIO(strip(large, frame))))
    assert shown.shape == (own, 2 * own, 3)
    expected = np.concatenate(list(small.byte().permute(0, 2, 3, 1).numpy()), axis=1)
    if frame <= 16:
        assert (shown == expected).all()
    else:
        assert abs(shown.astype(float).mean() - expected.mean()) < 6  # with loss


def test_the_network_and_its_hooks_are_left_alone(images: Split) -> None:
    model = net().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    counted: list[tuple[int, int]] = []
    look(model, images, UNITS, k=2, on_looked=lambda done, of: counted.append((done, of)))
    assert counted[-1][0] == counted[-1][1] == 40 + 2 * (4 + 5)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_norms_are_found_where_they_read_one_layer(images: Split) -> None:
    assert behind_norms(net(), images.shape, ["0", "3"]) == {"0": "1", "3": "3"}

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(self.one(x)) + self.norm(self.two(x))

    assert behind_norms(Shared(), images.shape, ["two", "one"]) == {"two": "two", "one": "one"}


def test_grey_images_have_no_colour(images: Split) -> None:
    grey = replace(images, images=images.images[:, :1], normalisation=type(images.normalisation)((0.5,), (0.5,)))
    rows = look(net(1), grey, UNITS, k=2).rows
    assert rows["colour"].isna().all()
    assert rows["colour_selective"].isna().all()
    assert rows["shape_selective"].notna().sum() == rows["live"].sum()


def test_bad_input(images: Split) -> None:
    with pytest.raises(PrunescopeError, match="none is among the layers"):
        look(net(), images, [("6", 0)], k=2)
    with pytest.raises(PrunescopeError, match="the split has none"):
        look(net(), images.subset(np.arange(0)), UNITS, k=2)
    for wrong in (-1, 101):
        with pytest.raises(PrunescopeError, match=r"look must be 0 \(no patches\) to 100"):
            Question({"name": "small_cnn"}, {"name": "shapes"}, look=wrong)
