"""Where stages end, in networks whose stages are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from prunescope.core.compat import torchvision_module
from prunescope.core.errors import PrunescopeError
from prunescope.models.axes import last_learned, units_last
from prunescope.models.stages import last_of_stages
from prunescope.models.zoo import build_model
from prunescope.testing.snapshot import Snapshot, prepare


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet20", ["stage1", "stage2", "stage3"]),
        ("small_cnn", ["features.relu1", "features.relu2", "features"]),
        ("torchvision:resnet18", ["relu", "layer1", "layer2", "layer3", "layer4"]),
        ("torchvision:squeezenet1_1", ["features.1", "features.4", "features.7", "features"]),
    ],
)
def test_stages_of_known_networks(name: str, expected: list[str]) -> None:
    assert last_of_stages(build_model(name, classes=4, channels=3, seed=0), (3, 64, 64)) == expected


class Gated(nn.Module):
    """A squeeze-excite gate, a ReLU that is shared, tokens behind the maps, and maps whose channels come last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.gate = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Sequential()
        self.gate.append(nn.AdaptiveAvgPool2d(1)).append(nn.Conv2d(4, 4, 1))
        self.pool, self.last = nn.MaxPool2d(2), nn.LayerNorm(4)
        self.tokens, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x))
        x = self.pool(self.relu(x * self.gate(x)))
        x = self.last(x.permute(0, 2, 3, 1))
        return self.head(self.tokens(x.flatten(1, 2)).mean(1))


def test_what_runs_twice_or_has_no_convolution_is_no_stage() -> None:
    assert last_of_stages(Gated(), (3, 8, 8)) == ["conv", "gate", "tokens"]


def test_the_network_is_left_as_it_was() -> None:
    model = prepare(build_model("resnet20", classes=4, channels=3, seed=0))
    before = Snapshot(model)
    last_of_stages(model, (3, 16, 16))
    with pytest.raises(PrunescopeError, match="does not run on an image of shape"):
        last_of_stages(model, (1, 16, 16))
    assert not before.differences()


def test_a_network_without_maps_has_no_stages() -> None:
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(PrunescopeError, match="no stages"):
        last_of_stages(model, (3, 2, 2))


def test_maps_of_a_swin_transformer_have_their_units_last() -> None:
    kind = torchvision_module("torchvision.models.swin_transformer").SwinTransformer
    with torch.random.fork_rng(devices=[]):
        model = kind([2, 2], 12, [1, 1], [2, 2], [2, 2], num_classes=3).eval()
    assert last_of_stages(model, (3, 16, 16)) == ["features.1", "permute"]  # 8 x 8 maps, then 4 x 4
    names = ["features.0.0", "features.0", "features.1", "features.2", "features.3", "norm", "permute"]
    learned = last_learned(model, names)
    seen: dict[str, tuple[int, ...]] = {}
    for name in names:
        model.get_submodule(name).register_forward_hook(
            lambda _m, _i, out, name=name: seen.update({name: tuple(out.shape)})
        )
    with torch.no_grad():
        model(torch.zeros(1, 3, 16, 16))
    last = [name for name in names if units_last(learned[name], seen[name], name)]
    assert last == names[1:-1]
    assert [seen[name][3 if name in last else 1] for name in names] == [12, 12, 12, 24, 24, 24, 24]


def test_maps_that_can_be_read_both_ways_are_refused() -> None:
    with pytest.raises(
        PrunescopeError, match=r"'block' gives \(2, 8, 4, 8\), in which units may be the second axis or"
    ):
        units_last(nn.Linear(3, 8), (2, 8, 4, 8), "block")
    with pytest.raises(PrunescopeError, match="name a layer inside it"):
        units_last(nn.LayerNorm(8), (2, 5, 4, 6), "block")
    assert not units_last(nn.Conv2d(3, 8, 1), (2, 8, 4, 8), "block")
    assert not units_last(None, (2, 8, 4, 8), "block")
