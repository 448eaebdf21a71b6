"""A window around what a place sees gives what the whole image gives there; where it does not, it is not used."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_sees import images, network
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.engine.sees.look import Look, what_filters_see
from prunescope.engine.sees.windows import windows_of
from prunescope.engine.upto import output_of, values_at
from prunescope.models.receptive import receptive_fields


def holds(model: nn.Module, layer: str, shape: tuple[int, int, int]) -> int:
    """Places at the border and within, in their windows and in the whole image; returns the windows' pixels."""
    model = model.double().eval()
    windows = windows_of(receptive_fields(model, shape, [layer])[layer], shape)
    image = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        whole = output_of(model, layer, image)
        height, width = whole.shape[2:]
        rows, columns = (
            item.flatten() for item in torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        )
        parts, inside_rows, inside_columns = windows.cut(image.expand(len(rows), -1, -1, -1), rows, columns)
        cut = output_of(model, layer, parts.contiguous())
        channels = torch.zeros_like(rows)
        got = values_at(cut, channels, inside_rows, inside_columns)
    torch.testing.assert_close(got, whole[0, 0, rows, columns], rtol=1e-9, atol=1e-12)
    return windows.size[0] * windows.size[1]


def _some(size: int) -> list[int]:
    return sorted({0, 1, size // 3, size // 2, size - 2, size - 1} & set(range(size)))


@st.composite
def sliding(draw: Any) -> nn.Module:
    """Convolutions and poolings of any geometry one after the other, also uneven and of dead ends at the border."""
    made: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        kernel, stride = (tuple(draw(st.integers(1, 3)) for _ in range(2)) for _ in range(2))
        padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
        if draw(st.booleans()):
            made.append(nn.Conv2d(2, 2, kernel, stride, padding, draw(st.integers(1, 2))))
        else:
            made.append(nn.MaxPool2d(kernel, stride, padding, ceil_mode=draw(st.booleans())))
    return nn.Sequential(*made)


@given(sliding(), st.integers(20, 29), st.integers(20, 29))
@settings(max_examples=60, deadline=None)
def test_windows_give_what_the_image_gives(model: nn.Module, height: int, width: int) -> None:
    made: list[int] = []
    with suppress(RuntimeError), torch.no_grad():
        model(torch.zeros(1, 2, height, width))
        made.append(height)
    assume(made)  # no map has become empty
    holds(model, str(len(model) - 1), (2, height, width))


@pytest.mark.parametrize(
    ("name", "layer", "share"),
    [("squeezenet1_0", "features.3.expand3x3", 0.05), ("resnet18", "layer2.0.conv2", 0.5)],
)
def test_windows_of_torchvision_s_networks_are_small(name: str, layer: str, share: float) -> None:
    model = torchvision_module("torchvision.models").get_model(name, weights=None)
    assert holds(model, layer, (3, 131, 127)) < share * 131 * 127


def test_behind_a_gate_the_window_is_the_image() -> None:
    model = torchvision_module("torchvision.models").mobilenet_v3_small()
    fields = receptive_fields(model, (3, 65, 63), ["features.1.block.0.0", "features.2.block.0.0"])
    before, behind = (windows_of(field, (3, 65, 63)) for field in fields.values())
    assert not before.whole
    assert behind.whole


class Placed(nn.Module):
    """Adds a map of the image's place: either learned, of one size, or drawn for any size."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        self.learned = learned
        self.map = nn.Parameter(torch.linspace(0, 3, 14 * 14).view(14, 14))

    def forward(self, x: Tensor) -> Tensor:
        if self.learned:
            return x + self.map
        return x + torch.linspace(0, 3, x.shape[-1] * x.shape[-2]).view(x.shape[-2:])


@pytest.mark.parametrize("learned", [True, False])
def test_a_network_that_knows_places_sees_whole_images(learned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(Placed(learned), *network())
    model(torch.zeros(2, 3, 14, 14))
    options = Look(k=3, shuffles=1, batch_size=8)
    (found,) = what_filters_see(model, images(), ["1"], options=options)
    monkeypatch.setattr(
        "prunescope.engine.sees.look.windows_of", lambda *args, **kwargs: windows_of(*args, **{**kwargs, "whole": True})
    )
    (whole,) = what_filters_see(model, images(), ["1"], options=options)
    np.testing.assert_allclose(found.colour, whole.colour, atol=1e-4)
    np.testing.assert_allclose(found.shape, whole.shape, atol=1e-4)


def test_fields_without_a_constant_step_have_no_windows() -> None:
    pool = nn.AdaptiveAvgPool2d(5)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), pool, nn.Conv2d(2, 2, 1))
    windows = windows_of(receptive_fields(model, (2, 13, 13), ["2"])["2"], (2, 13, 13))
    assert windows.whole
    assert windows.size == (13, 13)


def test_fields_that_padding_cuts_within_the_image() -> None:
    thin = nn.MaxPool2d(1, (1, 2))
    model = nn.Sequential(thin, thin, nn.Conv2d(2, 2, (1, 3), stride=(1, 3), padding=(0, 1), dilation=2))
    holds(model, "2", (2, 20, 21))
