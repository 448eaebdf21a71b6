from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from prunescope.core.mask import Mask
from prunescope.engine.flops import Flops, count_flops
from prunescope.models.layers import prunable
from prunescope.models.zoo import build_model
from prunescope.testing import Snapshot, tiny_network
from prunescope.testing.snapshot import prepare


def total(model: nn.Module, *shape: int) -> int:
    return count_flops(model, torch.zeros(shape)).total


@pytest.mark.parametrize(
    ("layer", "shape", "multiplications"),
    [
        (nn.Linear(5, 7), (3, 5), 3 * 5 * 7),
        (nn.Linear(5, 7, bias=False), (2, 4, 5), 2 * 4 * 5 * 7),
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 10, 12), 2 * 10 * 12 * 8 * 3 * 9),
        (nn.Conv2d(4, 8, (3, 5), stride=2, groups=2), (1, 4, 11, 9), 5 * 3 * 8 * 2 * 15),
        (nn.Conv2d(6, 6, 3, groups=6, dilation=2), (1, 6, 8, 8), 4 * 4 * 6 * 9),
        (nn.Conv1d(2, 3, 4), (1, 2, 10), 7 * 3 * 2 * 4),
        (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(3)), (1, 3, 8, 8), 0),
    ],
)
def test_layers_by_hand(layer: nn.Module, shape: tuple[int, ...], multiplications: int) -> None:
    found = count_flops(layer, torch.zeros(shape))
    assert found == Flops(2 * multiplications, 2 * multiplications)


@pytest.mark.parametrize("name", ["resnet20", "vgg11", "alexnet_cifar", "small_cnn"])
def test_networks_as_torch_counts_them(name: str) -> None:
    model = build_model(name, classes=10, channels=3, seed=0).eval()
    x = torch.zeros(2, 3, 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as peer:
        model(x)
    assert count_flops(model, x).total == peer.get_total_flops() == 2 * total(model, 1, 3, 32, 32)


class Attention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inside = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.inside(x).chunk(3, 2))
        return F.scaled_dot_product_attention(q, k, v)


def test_attention_by_hand() -> None:
    """Also where a fused kernel would run that torch's counter does not know."""
    projections, products = 9 * 16 * 48, 2 * 9 * 9 * 16
    assert total(Attention(4), 2, 9, 16) == 2 * 2 * (projections + products)


def test_a_transformer_layer_by_hand() -> None:
    """In eval mode it would run as one fused operation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nested tensors
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    projections, products = 9 * 16 * (48 + 16 + 32 + 32), 2 * 9 * 9 * 16
    before = torch.backends.mha.get_fastpath_enabled()
    assert total(layer, 1, 9, 16) == 2 * (projections + products)
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_nonzero_counts_kept_weights() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))
    kept = {"0.weight": torch.zeros(4, 2, 3, 3).bool(), "2.weight": torch.zeros(3, 144).bool()}
    kept["0.weight"].view(-1)[:10] = True
    kept["2.weight"].view(-1)[:50] = True
    Mask(kept).apply_(model)
    with torch.no_grad():
        model[2].bias.zero_()  # a bias multiplies nothing
    found = count_flops(model, torch.zeros(5, 2, 8, 8))
    assert found == Flops(2 * 5 * (36 * 72 + 432), 2 * 5 * (36 * 10 + 50))


def test_nonzero_lies_between_nothing_and_all() -> None:
    model = build_model("resnet20", classes=10, channels=3, seed=0)
    parameters = dict(model.named_parameters())
    mask = Mask({n: torch.rand(parameters[n].shape, generator=torch.Generator().manual_seed(1)) < 0.2
                 for n in prunable(model)})  # fmt: skip
    mask.apply_(model)
    found = count_flops(model, torch.zeros(1, 3, 32, 32))
    assert found.nonzero == pytest.approx(0.2 * found.total, rel=0.02)
    Mask({name: torch.zeros_like(kept) for name, kept in mask.items()}).apply_(model)
    assert count_flops(model, torch.zeros(1, 3, 32, 32)) == Flops(found.total, 0)


@pytest.mark.parametrize("count", [lambda m: total(m, 2, 3, 8, 8), lambda m: total(m, 2, 4, 8, 8)], ids=["", "error"])
def test_the_network_is_left_alone(count: Callable[[nn.Module], int]) -> None:
    model = prepare(tiny_network())
    before, fast = Snapshot(model), torch.backends.mha.get_fastpath_enabled()
    with suppress(RuntimeError):
        count(model)
    assert not before.differences()
    assert torch.backends.mha.get_fastpath_enabled() == fast
